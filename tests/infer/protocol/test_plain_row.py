"""Rows of a plain batch file."""

import pytest

from infer.protocol import RequestError, parse_plain_row

from .asking import HELLO, MODEL, chat, only_answer


def test_plain_rows_are_either():
    row = parse_plain_row({"messages": HELLO, "temperature": 0}, MODEL, default_seed=5)
    assert row == chat(temperature=0)
    row = parse_plain_row({"prompt": "Hello"}, MODEL, default_seed=5, default_max_tokens=50)
    assert (row.kind, only_answer(row).max_new_tokens) == ("completion", 50)
    for bad in ({}, {"prompt": "x", "messages": HELLO}):
        with pytest.raises(RequestError, match='either "prompt" or "messages"'):
            parse_plain_row(bad, MODEL, default_seed=0)
    with pytest.raises(RequestError, match="stream"):
        parse_plain_row({"prompt": "x", "stream": True}, MODEL, default_seed=0)
