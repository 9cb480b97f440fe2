"""The programs that a job's rows are found to need serve every row that can be parsed."""

import pytest

from infer.batch.job_modes import Needs, modes_for, needs_of
from infer.engine.request import Request
from infer.engine.row import mode_of
from infer.engine.settings import GREEDY_ONLY, SAMPLED
from infer.loaded_model import load_model
from infer.protocol import ServedModel, parse_plain_row

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
FIELDS = [
    {},
    {"temperature": 0},
    {"temperature": 0.7, "top_p": 0.9, "top_k": 3, "min_p": 0.1},
    {"frequency_penalty": 0.5},
    {"presence_penalty": 0.5},
    {"repetition_penalty": 1.2},
    {"logit_bias": {"5": 3}},
    {"allowed_token_ids": [4, 5]},
    {"logprobs": True, "top_logprobs": 3},
    {"response_format": {"type": "json_object"}},
    {"response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA}}},
    {"guided_json": SCHEMA},
    {"guided_regex": "[ab]+"},
    {"guided_grammar": 'start: "a"'},
    {"structured_outputs": {"regex": "[ab]+"}},
]


@pytest.fixture(scope="module")
def model(chat_checkpoint):
    return ServedModel.of(load_model(chat_checkpoint), names=("m",))


@pytest.mark.parametrize("fields", FIELDS, ids=lambda fields: "-".join(fields) or "none")
def test_what_a_row_needs_is_compiled(model, fields):
    body = {"messages": [{"role": "user", "content": "hi"}], **fields}
    (answer, *_) = parse_plain_row(body, model, default_seed=0).answers
    request = Request(
        tuple(answer.prompt),
        answer.sampling,
        answer.max_new_tokens,
        num_logprobs=answer.num_logprobs,
        constraint=answer.constraint,
    )
    modes = modes_for(needs_of(body))
    assert any(mode.covers(mode_of(request)) for mode in modes)


def test_nothing_else_is_compiled():
    assert modes_for(Needs(0)) == (GREEDY_ONLY,)
    assert needs_of({"temperature": 0, "logprobs": False}) == Needs(0)
    assert modes_for(needs_of({"temperature": 0.5})) == (GREEDY_ONLY, SAMPLED)
