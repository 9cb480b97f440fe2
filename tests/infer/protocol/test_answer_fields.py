"""The fields that both interfaces share, and how they are refused."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infer.batch.batch_command import batch
from infer.protocol import (
    ParsedRequest,
    RequestError,
    error_object_of,
    parse_chat,
    parse_completion,
    parse_plain_row,
)
from infer.sampling import GREEDY, SamplingParameters
from infer.server.serve_command import serve
from llama_jax.errors import InputError

from .asking import EOT, MODEL, PARSERS, chat, completion, only_answer


@PARSERS
def test_what_is_not_said_is_the_default(parse):
    request = parse()
    answer = only_answer(request)
    assert answer.sampling == SamplingParameters(temperature=0.6, top_p=0.9, seed=5)
    assert (request.model_name, request.stream, request.include_usage) == ("tiny", False, False)
    assert (request.echo, answer.n, answer.eos_ids) == (None, 1, MODEL.eos_ids)
    assert (answer.stop_strings, answer.stop_ids, answer.min_new_tokens) == ((), frozenset(), 0)
    assert (answer.num_logprobs, answer.num_prompt_logprobs, answer.constraint) == (None,) * 3
    assert answer.skip_special and not answer.include_stop and not answer.parse_tools


@PARSERS
def test_every_sampling_field_arrives(parse):
    answer = only_answer(
        parse(
            temperature=1,
            top_p=0.5,
            top_k=40,
            min_p=0.1,
            seed=2**32 - 1,
            repetition_penalty=1.5,
            presence_penalty=-1,
            frequency_penalty=2,
            logit_bias={"5": -100, "7": 1.5},
            allowed_token_ids=[5, 7, 5],
            n=3,
            stop=["END", "<eot>"],
            stop_token_ids=[9],
            min_tokens=2,
            max_tokens=4,
            include_stop_str_in_output=True,
            skip_special_tokens=False,
            prompt_logprobs=3,
        )
    )
    assert answer.sampling == SamplingParameters(
        temperature=1,
        top_p=0.5,
        top_k=40,
        min_p=0.1,
        seed=2**32 - 1,
        repetition_penalty=1.5,
        presence_penalty=-1,
        frequency_penalty=2,
        logit_bias=((5, -100.0), (7, 1.5)),
        allowed_ids=(5, 7),
    )
    assert (answer.n, answer.min_new_tokens, answer.max_new_tokens) == (3, 2, 4)
    # A special token's name stops at its id as well.
    assert (answer.stop_strings, answer.stop_ids) == (("END", "<eot>"), {9, EOT})
    assert (answer.include_stop, answer.skip_special, answer.num_prompt_logprobs) == (
        True,
        False,
        3,
    )


@PARSERS
def test_null_is_absent(parse):
    nulls = dict.fromkeys(["temperature", "stop", "n", "seed", "logit_bias", "tools", "user"])
    if parse is completion:
        del nulls["tools"]
    assert parse(nulls) == parse()


@PARSERS
def test_labels_change_nothing(parse):
    labels = {
        "user": "me",
        "safety_identifier": "x",
        "prompt_cache_key": "y",
        "metadata": {"a": "b"},
        "store": False,
        "service_tier": "auto",
        "model": "tiny",
    }
    assert parse(labels) == parse()


@PARSERS
def test_the_limit_of_top_k_has_two_spellings(parse):
    assert only_answer(parse(top_k=-1)).sampling.top_k == 0
    assert only_answer(parse(top_k=0)).sampling.top_k == 0


@PARSERS
def test_ids_of_the_checkpoint_can_be_ignored(parse):
    assert only_answer(parse(ignore_eos=True)).eos_ids == frozenset()


@PARSERS
def test_cuts_beside_a_greedy_default_are_refused_and_beside_greedy_itself_are_not(parse):
    greedy = dataclasses.replace(MODEL, sampling=GREEDY)
    with pytest.raises(RequestError, match="top_p: does nothing .* default temperature of 0"):
        parse(model=greedy, top_p=0.9)
    assert only_answer(parse(model=greedy, top_p=1, top_k=-1)).sampling.temperature == 0
    assert only_answer(parse(temperature=0, top_p=0.9)).sampling.temperature == 0


def test_logprobs_are_a_switch_in_one_interface_and_a_number_in_the_other():
    assert only_answer(chat(logprobs=True)).num_logprobs == 0
    assert only_answer(chat(logprobs=True, top_logprobs=5)).num_logprobs == 5
    assert only_answer(chat(logprobs=False, top_logprobs=0)).num_logprobs is None
    assert only_answer(completion(logprobs=0)).num_logprobs == 0
    with pytest.raises(RequestError, match="top_logprobs: belongs to logprobs: true"):
        chat(top_logprobs=5)
    with pytest.raises(RequestError, match="logprobs: must be a whole number from 0 to 20"):
        completion(logprobs=True)
    with pytest.raises(RequestError, match="logprobs: must be true or false"):
        chat(logprobs=5)


@PARSERS
def test_streams_may_count(parse):
    request = parse(stream=True, stream_options={"include_usage": True})
    assert (request.stream, request.include_usage) == (True, True)
    with pytest.raises(RequestError, match="stream_options: belongs to stream: true"):
        parse(stream_options={"include_usage": True})
    with pytest.raises(RequestError, match="stream_options.include_usages: unknown field"):
        parse(stream=True, stream_options={"include_usages": True})


EXTENSIONS = {
    "top_k": 3,
    "min_p": 0.1,
    "repetition_penalty": 1.1,
    "allowed_token_ids": [1],
    "stop_token_ids": [2],
    "min_tokens": 1,
    "ignore_eos": True,
    "include_stop_str_in_output": True,
    "skip_special_tokens": False,
    "prompt_logprobs": 1,
    "structured_outputs": {"regex": "a"},
}


@pytest.mark.parametrize("name", EXTENSIONS)
@pytest.mark.parametrize("command", [serve, batch])
def test_the_help_names_the_fields_beyond_openais_and_they_are_understood(command, name):
    assert name in command.__doc__
    completion(temperature=1, max_tokens=2, **{name: EXTENSIONS[name]})


REFUSED = {
    "unknown": ({"temprature": 1}, "temprature", "unknown field; did you mean temperature"),
    "unknown null": ({"temprature": None}, "temprature", "unknown field"),
    "unlike any": ({"zzz": 1}, "zzz", "unknown field; take it out"),
    "unsupported": ({"suffix": "x"}, "suffix", "is not supported"),
    "bad_words": ({"bad_words": ["x"]}, "bad_words", "is not supported"),
    "negative temperature": ({"temperature": -1}, "temperature", "must be 0 or more, not -1"),
    "temperature text": ({"temperature": "1"}, "temperature", "must be a number"),
    "temperature bool": ({"temperature": True}, "temperature", "must be a number, not true"),
    "temperature NaN": ({"temperature": float("nan")}, "temperature", "must be a number"),
    "temperature infinite": ({"temperature": float("inf")}, "temperature", "must be a number"),
    "temperature huge": ({"temperature": 10**400}, "temperature", "must be a number"),
    "top_p": ({"top_p": 0}, "top_p", "must be over 0 and at most 1"),
    "top_k": ({"top_k": -2}, "top_k", "must be a whole number from -1"),
    "top_k float": ({"top_k": 1.5}, "top_k", "must be a whole number"),
    "min_p": ({"min_p": 1.1}, "min_p", "from 0 to 1"),
    "seed": ({"seed": 2**32}, "seed", "from 0 to 4294967295"),
    "negative seed": ({"seed": -1}, "seed", "from 0"),
    "repetition_penalty": ({"repetition_penalty": 0}, "repetition_penalty", "from 0.01 to 100"),
    "presence_penalty": ({"presence_penalty": 3}, "presence_penalty", "from -2 to 2"),
    "bias id": ({"logit_bias": {"x": 1}}, "logit_bias", "'x' is no token id"),
    "bias vocabulary": ({"logit_bias": {"265": 1}}, "logit_bias", "from 0 to 264, not 265"),
    "bias value": ({"logit_bias": {"1": 101}}, "logit_bias", "from -100 to 100"),
    "bias list": ({"logit_bias": [1]}, "logit_bias", "must be an object"),
    "bias twice": ({"logit_bias": {"1": 1, "01": 1}}, "logit_bias", "id twice"),
    "allowed": ({"allowed_token_ids": []}, "allowed_token_ids", "empty"),
    "allowed id": ({"allowed_token_ids": [300]}, "allowed_token_ids[0]", "from 0 to 264"),
    "n 0": ({"n": 0}, "n", "from 1 to 128"),
    "n huge": ({"n": 10**9}, "n", "from 1 to 128, not 1000000000"),
    "stop empty": ({"stop": ""}, "stop", "has 1 to 1000 characters"),
    "stop number": ({"stop": [1]}, "stop", "must be text, not 1"),
    "stop many": ({"stop": ["x"] * 33}, "stop", "at most 32"),
    "stop surrogate": ({"stop": "\ud800"}, "stop", "half a surrogate pair"),
    "stop ids": ({"stop_token_ids": [True]}, "stop_token_ids[0]", "whole number"),
    "max_tokens": ({"max_tokens": 0}, "max_tokens", "at least 1, not 0"),
    "max_tokens negative": ({"max_tokens": -5}, "max_tokens", "from 0, not -5"),
    "max_tokens context": ({"max_tokens": 1000}, "max_tokens", "over the context of 400"),
    "min_tokens": ({"min_tokens": 5, "max_tokens": 4}, "min_tokens", "over the limit of 4"),
    "ignore_eos": ({"ignore_eos": 1}, "ignore_eos", "must be true or false, not 1"),
    "prompt_logprobs": ({"prompt_logprobs": -1}, "prompt_logprobs", "from 0 to 20"),
    "prompt_logprobs stream": (
        {"prompt_logprobs": 1, "stream": True}, "prompt_logprobs", "not streamed",
    ),
    "stream": ({"stream": "yes"}, "stream", "must be true or false"),
    "store": ({"store": True}, "store", "no answer is stored"),
    "metadata": ({"metadata": 5}, "metadata", "must be an object"),
    "user": ({"user": 5}, "user", "must be text"),
    "model": ({"model": "gpt-4o"}, "model", "'gpt-4o' is not served here; use tiny, tiny-again"),
    "response_format": (
        {"response_format": {"type": "xml"}}, "response_format.type", "not one of text",
    ),
    "response_format text": ({"response_format": "json"}, "response_format", "JSON object"),
    "schema missing": (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
        "response_format.json_schema.schema", "missing",
    ),
    "schema impossible": (
        {"guided_json": {"type": "integer", "minimum": 3, "maximum": 2}}, "guided_json", "",
    ),
    "schema unknown": ({"guided_json": {"type": "colour"}}, "guided_json", ""),
    "schema broken": ({"guided_json": "{"}, "guided_json", "is not JSON"),
    "regex broken": ({"guided_regex": "("}, "guided_regex", ""),
    "lark broken": ({"guided_grammar": "start: nothing"}, "guided_grammar", ""),
    "choice empty": ({"guided_choice": []}, "guided_choice", "at least one"),
    "choice text": ({"guided_choice": "yes"}, "guided_choice", "list of texts"),
    "two grammars": (
        {"guided_regex": "a", "guided_choice": ["a"]}, "guided_choice", "cannot stand beside",
    ),
    "regex by itself": ({"regex": "a"}, "regex", 'write {"structured_outputs": {"regex"'),
    "regex as a format": (
        {"response_format": {"type": "regex"}}, "response_format.type", "structured_outputs",
    ),
    "structured": ({"structured_outputs": {"xml": 1}}, "structured_outputs.xml", "unknown field"),
    "structured empty": ({"structured_outputs": {}}, "structured_outputs", "give one of"),
    "grammar and ignore_eos": (
        {"guided_regex": "a", "ignore_eos": True}, "ignore_eos", "cannot stand beside a grammar",
    ),
    "grammar and min_tokens": (
        {"guided_regex": "a", "min_tokens": 1, "max_tokens": 3}, "min_tokens", "cannot stand",
    ),
}  # fmt: skip


@PARSERS
@pytest.mark.parametrize("fields, param, message", REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_honoured_is_refused_by_name(parse, fields, param, message):
    with pytest.raises(RequestError) as caught:
        parse(fields)
    error = caught.value
    assert message in str(error) and "\n" not in str(error)
    if param is not None:
        assert error.param == param
        assert str(error).startswith(f"{param}: ")
    status, body = error_object_of(error)
    assert status == (404 if param == "model" else 400)
    assert body["error"]["param"] == error.param


@pytest.mark.parametrize("body", [None, [], "x", 5, {1: 2}], ids=str)
@pytest.mark.parametrize("parse", [parse_chat, parse_completion, parse_plain_row])
def test_a_body_is_an_object(parse, body):
    with pytest.raises(RequestError):
        parse(body, MODEL, default_seed=0)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=5), values),
    max_leaves=5,
)


names = st.sampled_from(
    ["temperature", "n", "stop", "seed", "logit_bias", "messages", "prompt", "tools", "max_tokens"]
    + ["tool_choice", "response_format", "stream_options", "logprobs", "stop_token_ids", "model"]
    + ["guided_json", "structured_outputs", "echo", "metadata", "parallel_tool_calls"]
)


@PARSERS
@settings(max_examples=150)
@given(fields=st.dictionaries(names, json_values, max_size=3))
def test_any_body_is_parsed_or_refused_in_one_line(parse, fields):
    try:
        assert isinstance(parse(fields), ParsedRequest)
    except InputError as error:
        assert str(error) and "\n" not in str(error)
