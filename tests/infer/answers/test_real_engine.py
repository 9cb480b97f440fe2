"""Answers of the real engine with a tiny random model, down to OpenAI's objects."""

import dataclasses

import pytest

from infer.answers import Answering, AnswerRequest, CollectedAnswer
from infer.engine.settings import EVERYTHING
from infer.protocol import StreamedResponse, WholeResponse, parse_chat, parse_completion
from infer.sampling import GREEDY, SamplingParameters
from tests.infer.engine.run_engine import CONFIG, SETTINGS, compiled_engine

from ..protocol.served_model import served_model

MODEL = dataclasses.replace(served_model(), max_length=SETTINGS.max_length, sampling=GREEDY)
TOKENIZER = MODEL.tokenizer
PROMPTS = [tuple(TOKENIZER.encode(text)) for text in ("Hello", "x", "The long and winding road")]


@pytest.fixture(scope="module")
def answering():
    config = dataclasses.replace(CONFIG, vocab_size=TOKENIZER.vocab_size)
    settings = dataclasses.replace(
        SETTINGS,
        row_buckets=(4,),
        prefill_lengths=(64,),
        decode_steps=5,
        modes=(EVERYTHING,),
        prompt_logprobs=True,
    )
    return Answering(compiled_engine(settings, config), TOKENIZER)


@pytest.fixture(autouse=True)
def no_page_is_left_in_use(answering):
    yield
    assert answering.is_idle
    assert answering._engine.usage().pages_used == 0


def ask(prompt, **fields):
    request = AnswerRequest(prompt, GREEDY, 20, frozenset())
    return dataclasses.replace(request, **fields)


def answers(answering, *requests):
    """Of each request, its samples' answers."""
    ids = [answering.add(request) for request in requests]
    collected = [[CollectedAnswer() for _ in range(request.n)] for request in requests]
    while not answering.is_idle:
        for delta in answering.step():
            collected[ids.index(delta.answer_id)][delta.index].add(delta)
    return collected


def test_texts_are_those_of_the_tokens(answering):
    for (answer,), prompt in zip(answers(answering, *map(ask, PROMPTS)), PROMPTS, strict=True):
        assert len(answer.tokens) == answer.num_new_tokens == 20
        assert answer.text == TOKENIZER.decode(answer.tokens, skip_special=True)
        assert answer.finish_reason == "length"
        # The same alone.
        ((alone,),) = answers(answering, ask(prompt))
        assert alone.tokens == answer.tokens


def test_a_stop_string_ends_a_row_early(answering):
    ((whole,),) = answers(answering, ask(PROMPTS[0]))
    stop = whole.text[7:9]
    (cut,), (other,) = answers(answering, ask(PROMPTS[0], stop_strings=(stop,)), ask(PROMPTS[0]))
    assert cut.text == whole.text[: whole.text.index(stop)]
    assert (cut.finish_reason, cut.stop) == ("stop", stop)
    assert cut.num_new_tokens < 20
    assert other.tokens == whole.tokens


def test_sample_i_is_the_answer_to_the_seed_plus_i(answering):
    sampling = SamplingParameters(temperature=1.0, seed=2**32 - 2)
    (samples,) = answers(answering, ask(PROMPTS[0], sampling=sampling, n=3))
    assert len({tuple(sample.tokens) for sample in samples}) == 3
    for seed, sample in zip([2**32 - 2, 2**32 - 1, 0], samples, strict=True):
        seeded = dataclasses.replace(sampling, seed=seed)
        ((alone,),) = answers(answering, ask(PROMPTS[0], sampling=seeded))
        assert alone.tokens == sample.tokens


def test_an_answer_scored_as_a_prompt_has_its_own_logprobs(answering):
    ((answer,),) = answers(answering, ask(PROMPTS[0], num_logprobs=2))
    for chosen in answer.logprobs:
        # Greedy takes the likeliest.
        assert (chosen.top[0].token, chosen.top[0].logprob) == (chosen.token, chosen.logprob)
    prompt = (*PROMPTS[0], *answer.tokens)
    ((scored,),) = answers(answering, ask(prompt, max_new_tokens=0, num_prompt_logprobs=2))
    assert (scored.tokens, scored.num_new_tokens, scored.finish_reason) == ([], 0, "length")
    again = scored.prompt_logprobs[len(PROMPTS[0]) :]
    assert [x.token for x in again] == answer.tokens
    # Prefill sums in another order than decoding does; float32.
    for ours, theirs in zip(again, answer.logprobs, strict=True):
        assert ours.logprob == pytest.approx(theirs.logprob, abs=1e-4)


def test_cancelled_rows_leave_the_engine(answering):
    cancelled = answering.add(ask(PROMPTS[0], n=2))
    other = answering.add(ask(PROMPTS[1]))
    assert {delta.answer_id for delta in answering.step()} == {cancelled, other}
    answering.cancel(cancelled)
    while not answering.is_idle:
        assert {delta.answer_id for delta in answering.step()} <= {other}


def respond(answering, request, response):
    ids = [answering.add(answer) for answer in request.answers]
    chunks = []
    while not answering.is_idle:
        for delta in answering.step():
            chunks.append(response(ids.index(delta.answer_id), delta))
    return chunks


CHAT = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 40}
TOOL = {
    "type": "function",
    "function": {
        "name": "add",
        "parameters": {
            "type": "object",
            "properties": {"a": {"enum": [1, 2]}},
            "required": ["a"],
            "additionalProperties": False,
        },
    },
}


@pytest.mark.parametrize("seed", [0, 1])
def test_a_call_that_must_come_comes(answering, seed):
    """Even of a model that knows nothing."""
    body = {**CHAT, "tools": [TOOL], "tool_choice": "required", "temperature": 1, "seed": seed}
    request = parse_chat({**body, "max_tokens": 60}, MODEL, default_seed=0)
    whole = WholeResponse(request, response_id="x", created=0)
    respond(answering, request, whole.add)
    (choice,) = whole.body()["choices"]
    assert choice["finish_reason"] == "tool_calls"
    (call,) = choice["message"]["tool_calls"]
    assert call["function"]["name"] == "add"
    assert call["function"]["arguments"] in ('{"a": 1}', '{"a": 2}')


def test_a_choice_is_made(answering):
    choices = ["yes", "no", "perhaps é"]
    body = {"prompt": ["a", "b"], "guided_choice": choices, "n": 2, "temperature": 1}
    request = parse_completion(body, MODEL, default_seed=0)
    whole = WholeResponse(request, response_id="x", created=0)
    respond(answering, request, whole.add)
    assert {choice["text"] for choice in whole.body()["choices"]} <= set(choices)
    assert [choice["finish_reason"] for choice in whole.body()["choices"]] == ["stop"] * 4


def test_a_stream_says_the_same(answering):
    request = parse_chat({**CHAT, "n": 3, "temperature": 1, "stop": ["a"]}, MODEL, default_seed=7)
    whole = WholeResponse(request, response_id="x", created=0)
    respond(answering, request, whole.add)
    stream = StreamedResponse(request, response_id="x", created=0)
    texts = ["", "", ""]
    for chunks in respond(answering, request, stream.chunks):
        for chunk in chunks:
            (choice,) = chunk["choices"]
            texts[choice["index"]] += choice["delta"].get("content", "")
    assert texts == [choice["message"]["content"] for choice in whole.body()["choices"]]


def test_a_grammar_without_a_way_out_fails_its_own_answer_only(answering):
    grammar = 'start: "ab" nothing\nnothing: /[^\\s\\S]/'
    stuck = parse_completion({"prompt": "x", "guided_grammar": grammar}, MODEL, default_seed=0)
    (failed,), (other,) = answers(answering, *stuck.answers, ask(PROMPTS[0]))
    assert failed.finish_reason == "error" and failed.error
    assert (other.finish_reason, len(other.tokens)) == ("length", 20)
