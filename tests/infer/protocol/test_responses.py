"""Responses and chunks: of the shape that OpenAI's own client reads, and of one content."""

import copy
import dataclasses
import json

import pytest
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.shared import ErrorObject

from infer.answers import Answering, TextLogprob
from infer.protocol import (
    RequestError,
    StreamedResponse,
    WholeResponse,
    error_object,
    error_object_of,
    new_response_id,
    parse_chat,
    parse_completion,
)
from infer.protocol.logprob_objects import CompletionLogprobs

from ..answers.scripted_engine import ScriptedEngine
from .served_model import served_model

MODEL = served_model()
TOKENIZER = MODEL.tokenizer
EOT = TOKENIZER.special_tokens["<eot>"]
TOOLS = [{"type": "function", "function": {"name": "f"}}]
CALL = '{"name": "f", "parameters": {"a": "é"}}'


def asked(fields):
    fields = {"max_tokens": 200, **fields}
    if "prompt" in fields:
        return parse_completion(fields, MODEL, default_seed=0)
    fields.setdefault("messages", [{"role": "user", "content": "?"}])
    return parse_chat(fields, MODEL, default_seed=0)


def deltas_of(request, texts, *, tokens_per_step=2):
    """(number, delta) of a request whose samples are answered with `texts`."""
    scripts = [[*TOKENIZER.encode(text), EOT] for text in texts]
    answering = Answering(ScriptedEngine(scripts, tokens_per_step=tokens_per_step), TOKENIZER)
    numbers = {answering.add(answer): number for number, answer in enumerate(request.answers)}
    while not answering.is_idle:
        for delta in answering.step():
            yield numbers[delta.answer_id], delta


def whole(fields, *texts):
    request = asked(fields)
    response = WholeResponse(request, response_id="it-1", created=1_700_000_000)
    for number, delta in deltas_of(request, texts):
        assert not response.is_finished
        response.add(number, delta)
    assert response.is_finished and response.error is None
    body = json.loads(json.dumps(response.body(), allow_nan=False))
    kind = ChatCompletion if request.kind == "chat" else Completion
    return kind.model_validate(without_first_of_prompt(body), strict=True), body


def without_first_of_prompt(body):
    """Without an echoed prompt's first token, which in truth has null for a log-probability, as
    OpenAI's own answers had, and in their types has not."""
    body = copy.deepcopy(body)
    for choice in body["choices"]:
        logprobs = choice["logprobs"] or {}
        if logprobs.get("token_logprobs", [0])[0] is None:
            assert logprobs["top_logprobs"][0] is None
            choice["logprobs"] = {name: values[1:] for name, values in logprobs.items()}
    return body


def streamed(fields, *texts):
    request = asked({**fields, "stream": True})
    response = StreamedResponse(request, response_id="it-1", created=1_700_000_000)
    chunks = []
    for number, delta in deltas_of(request, texts):
        assert not response.is_finished
        chunks += response.chunks(number, delta)
    assert response.is_finished
    chunks += response.last_chunks()
    kind = ChatCompletionChunk if request.kind == "chat" else Completion
    for chunk in chunks:
        json.dumps(chunk, allow_nan=False)
        # A completion's type is that of the whole one, whose reason is never null.
        if kind is ChatCompletionChunk or not any(not c["finish_reason"] for c in chunk["choices"]):
            kind.model_validate(chunk, strict=True)
    return chunks


def test_a_chat_answer():
    response, body = whole({}, "Hello é!")
    (choice,) = response.choices
    assert (response.id, response.object, response.created) == (
        "it-1",
        "chat.completion",
        1_700_000_000,
    )
    assert (response.model, choice.index, choice.finish_reason) == ("tiny", 0, "stop")
    assert (choice.message.role, choice.message.content) == ("assistant", "Hello é!")
    assert choice.message.tool_calls is None and choice.logprobs is None
    num_prompt = len(asked({}).answers[0].prompt)
    usage = response.usage
    # The id that ended it counts.
    assert (usage.prompt_tokens, usage.completion_tokens) == (num_prompt, 10)
    assert usage.total_tokens == num_prompt + 10
    assert "prompt_logprobs" not in body


def test_samples_are_choices_and_the_prompt_counts_once():
    response, _ = whole({"n": 3}, "one", "two", "three")
    assert [(choice.index, choice.message.content) for choice in response.choices] == [
        (0, "one"),
        (1, "two"),
        (2, "three"),
    ]
    assert response.usage.completion_tokens == 4 + 4 + 6
    assert response.usage.prompt_tokens == len(asked({}).answers[0].prompt)


def test_choices_of_several_prompts_follow_one_another():
    fields = {"prompt": ["a", "bb"], "n": 2}
    response, _ = whole(fields, "1", "2", "3", "4")
    assert [(choice.index, choice.text) for choice in response.choices] == [
        (0, "1"),
        (1, "2"),
        (2, "3"),
        (3, "4"),
    ]
    assert response.object == "text_completion"
    assert response.usage.prompt_tokens == 2 + 3
    chunks = streamed(fields, "1", "2", "3", "4")
    texts = {chunk["choices"][0]["index"]: chunk["choices"][0]["text"] for chunk in chunks}
    assert texts == {0: "1", 1: "2", 2: "3", 3: "4"}


def test_a_limit_and_a_stop_are_told():
    response, body = whole({"max_tokens": 3}, "Hello")
    assert (response.choices[0].finish_reason, response.choices[0].message.content) == (
        "length",
        "Hel",
    )
    assert body["choices"][0]["stop_reason"] is None
    response, body = whole({"stop": "l"}, "Hello")
    assert (response.choices[0].finish_reason, response.choices[0].message.content) == (
        "stop",
        "He",
    )
    assert body["choices"][0]["stop_reason"] == "l"


def test_tool_calls():
    response, _ = whole({"tools": TOOLS}, CALL)
    (choice,) = response.choices
    (call,) = choice.message.tool_calls
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", None)
    assert (call.type, call.function.name) == ("function", "f")
    assert call.function.arguments == '{"a": "é"}'
    assert call.id.startswith("call_")
    # Made of the response's id and the place of the call, so that a second run writes it again.
    assert whole({"tools": TOOLS}, CALL)[0].choices[0].message.tool_calls[0].id == call.id
    several, _ = whole({"tools": TOOLS, "n": 2}, CALL + CALL, CALL)
    ids = [call.id for choice in several.choices for call in choice.message.tool_calls]
    assert len(set(ids)) == 3 and ids[0] == call.id


def test_a_tool_call_can_be_sent_back():
    response, _ = whole({"tools": TOOLS}, CALL)
    message = response.choices[0].message
    answer = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "4"}
    question = {"role": "user", "content": "?"}
    fields = {"messages": [question, message.model_dump(), answer], "tools": TOOLS}
    assert asked(fields).answers[0].parse_tools


def test_logprobs_of_a_chat():
    response, _ = whole({"logprobs": True, "top_logprobs": 2}, "é")
    first, second = response.choices[0].logprobs.content
    assert (first.token, first.bytes) == ("\\xc3", [0xC3])
    assert (second.token, second.bytes) == ("\\xa9", [0xA9])
    assert first.logprob == -0.01 * TOKENIZER.encode("é")[0]
    assert len(first.top_logprobs) == 2
    plain, _ = whole({"logprobs": True}, "Hi")
    assert [token.token for token in plain.choices[0].logprobs.content] == ["H", "i"]
    assert plain.choices[0].logprobs.content[0].top_logprobs == []


def test_logprobs_of_a_completion():
    response, _ = whole({"prompt": "x", "logprobs": 1}, "aéb")
    logprobs = response.choices[0].logprobs
    assert logprobs.tokens == ["a", "bytes:\\xc3", "bytes:\\xa9", "b"]
    assert logprobs.text_offset == [0, 1, 1, 2]
    assert logprobs.token_logprobs == [-0.01 * token for token in TOKENIZER.encode("aéb")]
    for token, logprob, top in zip(
        logprobs.tokens, logprobs.token_logprobs, logprobs.top_logprobs, strict=True
    ):
        assert top[token] == logprob
    response, _ = whole({"prompt": "x", "logprobs": 0}, "ab")
    assert [set(top) for top in response.choices[0].logprobs.top_logprobs] == [{"a"}, {"b"}]


def test_offsets_are_those_of_a_text_whose_first_space_was_dropped():
    """SentencePiece's first token has a space that its text has not."""
    tokens = [
        TextLogprob(i, text, text.encode(), -1.0) for i, text in enumerate([" Hello", " you"])
    ]
    logprobs = CompletionLogprobs(frozenset())
    assert logprobs.part("Hello", tokens[:1])["text_offset"] == [0]
    assert logprobs.part(" you", tokens[1:])["text_offset"] == [5]


def test_an_echoed_prompt_is_scored():
    fields = {"prompt": "xé", "echo": True, "logprobs": 0}
    response, body = whole(fields, "ab")
    (choice,) = response.choices
    assert choice.text == "xéab"
    assert choice.logprobs.tokens == ["x", "bytes:\\xc3", "bytes:\\xa9", "a", "b"]
    assert choice.logprobs.text_offset == [0, 1, 1, 2, 3]
    # BOS has no text.
    first = {name: values[0] for name, values in body["choices"][0]["logprobs"].items()}
    assert first == {
        "tokens": "<bos>",
        "text_offset": 0,
        "token_logprobs": None,
        "top_logprobs": None,
    }
    assert response.usage.completion_tokens == 3
    scored, _ = whole({**fields, "max_tokens": 0}, "ab")
    assert (scored.choices[0].text, len(scored.choices[0].logprobs.tokens)) == ("xé", 3)
    assert scored.usage.completion_tokens == 0
    assert whole({"prompt": "xé", "echo": True}, "ab")[0].choices[0].text == "xéab"


def test_prompt_logprobs_are_written_as_vllm_does():
    _, body = whole({"prompt_logprobs": 1}, "a")
    nothing, *scored = body["prompt_logprobs"]
    prompt = asked({}).answers[0].prompt
    assert nothing is None and len(scored) == len(prompt) - 1
    for token, ranked in zip(prompt[1:], scored, strict=True):
        assert ranked[str(token)]["logprob"] == -0.01 * token
    _, body = whole({"prompt": [5, 6], "prompt_logprobs": 0}, "a")
    ranked = {"6": {"logprob": -0.06, "rank": None, "decoded_token": TOKENIZER.decode([6])}}
    assert body["choices"][0]["prompt_logprobs"] == [None, ranked]
    _, body = whole({"prompt": [5, 6], "prompt_logprobs": 0, "echo": True}, "a")
    assert body["choices"][0]["prompt_logprobs"] == [None, ranked]
    assert body["choices"][0]["text"] == TOKENIZER.decode([5, 6]) + "a"


def test_a_logprob_of_minus_infinity_can_be_written():
    request = asked({"logprobs": True})
    response = WholeResponse(request, response_id="it-1", created=0)
    for number, delta in deltas_of(request, ["a"]):
        impossible = (dataclasses.replace(x, logprob=float("-inf")) for x in delta.logprobs)
        response.add(number, dataclasses.replace(delta, logprobs=tuple(impossible)))
    content = response.body()["choices"][0]["logprobs"]["content"]
    assert content[0]["logprob"] == -9999.0


def test_chunks_begin_with_the_role_and_end_with_the_reason():
    chunks = streamed({}, "Hello")
    choices = [chunk["choices"][0] for chunk in chunks]
    assert choices[0]["delta"] == {"role": "assistant", "content": ""}
    assert "".join(choice["delta"].get("content", "") for choice in choices) == "Hello"
    assert choices[-1]["delta"] == {} and choices[-1]["finish_reason"] == "stop"
    assert [choice["finish_reason"] for choice in choices[:-1]] == [None] * (len(choices) - 1)
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert "usage" not in chunks[0]


def test_usage_comes_last_if_it_was_asked_for():
    for fields in ({}, {"prompt": "x"}):
        *chunks, last = streamed({**fields, "stream_options": {"include_usage": True}}, "Hello")
        assert all(chunk["usage"] is None for chunk in chunks)
        assert last["choices"] == []
        assert last["usage"] == whole(fields, "Hello")[1]["usage"]


def test_streamed_tool_calls_are_whole_and_nothing_else_is_shown():
    chunks = streamed({"tools": TOOLS}, CALL)
    role, calls, last = (chunk["choices"][0] for chunk in chunks)
    assert role["delta"]["role"] == "assistant"
    expected = whole({"tools": TOOLS}, CALL)[1]["choices"][0]["message"]["tool_calls"]
    assert calls["delta"] == {"tool_calls": [{"index": 0, **expected[0]}]}
    assert last["finish_reason"] == "tool_calls"


STREAMED = {
    "chat": {"n": 2},
    "chat logprobs": {"n": 2, "logprobs": True, "top_logprobs": 1, "stop": "END"},
    "chat tools": {"n": 2, "logprobs": True, "tools": TOOLS},
    "completion": {"prompt": "x", "n": 2, "logprobs": 1, "stop": ["END"]},
    "completion echo": {"prompt": "é x", "n": 2, "echo": True, "logprobs": 0},
}


@pytest.mark.parametrize("texts", [("aé ENb", "xEND!"), (CALL, "Sure." + CALL)], ids=["a", "b"])
@pytest.mark.parametrize("fields", STREAMED.values(), ids=STREAMED)
def test_a_stream_says_what_a_whole_response_says(fields, texts):
    _, body = whole(fields, *texts)
    expected = body["choices"]
    found = [{} for _ in expected]
    for chunk in streamed(fields, *texts):
        (choice,) = chunk["choices"]
        put_together(found[choice["index"]], choice)
    for choice in expected:
        if "message" in choice:
            choice |= {name: choice["message"].get(name) for name in ("content", "tool_calls")}
            choice["content"] = choice["content"] or ""
    assert found == [
        {name: choice[name] for name in part} for part, choice in zip(found, expected, strict=True)
    ]
    assert all(part["finish_reason"] for part in found)


def put_together(whole_choice, choice):
    """Adds one chunk's choice to what has come of it."""
    delta = choice.get("delta", {"text": choice.get("text")})
    for name in ("content", "text"):
        if delta.get(name) is not None:
            whole_choice[name] = whole_choice.get(name, "") + delta[name]
    if "tool_calls" in delta:
        whole_choice["tool_calls"] = [
            {name: value for name, value in call.items() if name != "index"}
            for call in delta["tool_calls"]
        ]
    if choice["logprobs"] is not None:
        logprobs = whole_choice.setdefault("logprobs", {})
        for name, values in choice["logprobs"].items():
            logprobs[name] = None if values is None else [*logprobs.get(name, []), *values]
    if choice["finish_reason"] is not None:
        whole_choice |= {name: choice[name] for name in ("finish_reason", "stop_reason")}


@pytest.mark.parametrize("fields", [{}, {"prompt": "x"}], ids=["chat", "completion"])
def test_a_sample_that_fails_is_an_error(fields):
    request = asked({**fields, "n": 2})
    answering = Answering(ScriptedEngine([[1], [1, EOT]]), TOKENIZER)
    answering.add(request.answers[0])
    whole_response = WholeResponse(request, response_id="x", created=0)
    stream = StreamedResponse(request, response_id="x", created=0)
    chunks = []
    for delta in answering.step():
        whole_response.add(0, delta)
        chunks += stream.chunks(0, delta)
    assert whole_response.error == "the logits are not finite"
    errors = [chunk["error"] for chunk in chunks if "error" in chunk]
    assert errors == [error_object("the logits are not finite", status=500)["error"]]


def test_error_objects_are_openais():
    for status, kind in [(400, "invalid_request_error"), (429, "rate_limit_error")]:
        body = error_object("no", status=status, param="n", code="c")
        error = ErrorObject.model_validate(body["error"], strict=True)
        assert (error.message, error.type, error.param, error.code) == ("no", kind, "n", "c")
    assert error_object("oh", status=503)["error"]["type"] == "server_error"
    error = RequestError("model: no", param="model", code="model_not_found", status=404)
    assert error_object_of(error) == (
        404,
        error_object("model: no", status=404, param="model", code="model_not_found"),
    )


def test_ids_of_responses_differ():
    assert new_response_id("chat") != new_response_id("chat")
    assert new_response_id("chat").startswith("chatcmpl-")
    assert new_response_id("completion").startswith("cmpl-")
