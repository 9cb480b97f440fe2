"""Requests to a model without weights."""

import pytest

from infer.protocol import parse_chat, parse_completion

from .served_model import served_model

HELLO = [{"role": "user", "content": "Hello"}]


TOOL = {
    "type": "function",
    "function": {
        "name": "f",
        "description": "Does it.",
        "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}},
    },
}


MODEL = served_model()


EOT = MODEL.tokenizer.special_tokens["<eot>"]


BOS = MODEL.tokenizer.bos_id


def chat(body=None, model=MODEL, **fields):
    return parse_chat({"messages": HELLO, **(body or {}), **fields}, model, default_seed=5)


def completion(body=None, model=MODEL, **fields):
    return parse_completion({"prompt": "Hello", **(body or {}), **fields}, model, default_seed=5)


PARSERS = pytest.mark.parametrize("parse", [chat, completion], ids=["chat", "completion"])


def only_answer(request):
    (answer,) = request.answers
    return answer
