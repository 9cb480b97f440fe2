"""What parsing knows of a model: of a checkpoint, and of its chat format."""

import dataclasses

from infer.answers import Answering
from infer.loaded_model import load_model
from infer.protocol import ServedModel, WholeResponse, parse_chat
from llama_jax.chat import Llama31Format
from llama_jax.chat.llama31_format import SPECIAL_TOKENS

from ..answers.byte_tokenizer import byte_tokenizer
from ..answers.scripted_engine import ScriptedEngine
from .served_model import served_model

TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


def test_a_checkpoint_is_served_under_its_names(chat_checkpoint):
    loaded = load_model(chat_checkpoint)
    model = ServedModel.of(loaded, names=("a", "b"))
    assert (model.names, model.max_length) == (("a", "b"), 256)
    assert (model.eos_ids, model.sampling) == (loaded.eos_ids, loaded.sampling)
    assert not model.shows_tools
    assert ServedModel.of(loaded, names=("a",), max_length=64).max_length == 64
    request = parse_chat(
        {"messages": [{"role": "user", "content": "Hi"}], "model": "b"}, model, default_seed=0
    )
    assert request.model_name == "b"
    (answer,) = request.answers
    assert loaded.tokenizer.decode(answer.prompt) == "<bos><user>Hi<eos><assistant>"


def test_llama_31_is_told_of_tools_and_its_calls_are_read():
    tokenizer = byte_tokenizer(special=SPECIAL_TOKENS)
    special = tokenizer.special_tokens
    model = dataclasses.replace(
        served_model(template=None),
        tokenizer=tokenizer,
        chat_format=Llama31Format(tokenizer),
        eos_ids=frozenset({special["<|eot_id|>"], special["<|eom_id|>"]}),
        max_length=2000,
    )
    assert model.shows_tools
    messages = [
        {"role": "user", "content": "?"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
            ],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "42"},
    ]
    body = {"messages": messages, "tools": [TOOL], "n": 3}
    request = parse_chat(body, model, default_seed=0)
    (answer,) = request.answers
    assert '"name": "f"' in tokenizer.decode(answer.prompt)
    python_tag, eot, eom = (special[f"<|{name}|>"] for name in ("python_tag", "eot_id", "eom_id"))
    call = tokenizer.encode('{"name": "f", "parameters": {"x": [1]}}')
    scripts = [
        [*call, eot],
        [python_tag, *tokenizer.encode('brave_search.call(query="rain")'), eom],
        [*tokenizer.encode("It is 42."), eot],
    ]
    answering = Answering(ScriptedEngine(scripts), tokenizer)
    answering.add(answer)
    whole = WholeResponse(request, response_id="x", created=0)
    while not answering.is_idle:
        for delta in answering.step():
            whole.add(0, delta)
    custom, builtin, text = whole.body()["choices"]
    (call,) = custom["message"]["tool_calls"]
    assert call["function"] == {"name": "f", "arguments": '{"x": [1]}'}
    (call,) = builtin["message"]["tool_calls"]
    assert call["function"] == {"name": "brave_search", "arguments": '{"query": "rain"}'}
    assert (text["message"]["content"], text["finish_reason"]) == ("It is 42.", "stop")
