"""Lines of the input: the two kinds, and what is refused."""

import json

import pytest

from llama_jax.batch_files.batch_row import BatchRow, RowError, parse_batch_row, texts_of

OPENAI = {"custom_id": "a", "method": "POST", "url": "/v1/completions", "body": {"prompt": "Hi"}}


def test_both_kinds_are_told_apart():
    row = parse_batch_row(json.dumps(OPENAI).encode(), 3)
    assert row == BatchRow(3, "a", "/v1/completions", False, {"prompt": "Hi"})
    plain = parse_batch_row(b'{"messages": [], "custom_id": "b", "top_k": 3}', 4)
    assert plain == BatchRow(4, "b", "/v1/chat/completions", True, {"messages": [], "top_k": 3})
    assert parse_batch_row(b'{"prompt": "x"}', 5).url == "/v1/completions"


def test_a_row_without_a_name_is_called_by_its_line():
    assert parse_batch_row(b'{"prompt": "x"}', 5).custom_id == "line-5"


@pytest.mark.parametrize(
    "text, custom_id, message",
    [
        (b"{", "line-9", "not valid JSON"),
        (b"caf\xe9", "line-9", "not valid JSON"),
        (b'{"prompt": "caf\xe9"}', "line-9", "not valid JSON"),
        (b"[" * 100_000, "line-9", "not valid JSON"),
        (b'{"a": ' * 100_000, "line-9", "not valid JSON"),
        (b'{"seed": ' + b"1" * 10_000 + b"}", "line-9", "not valid JSON"),
        (b'["prompt"]', "line-9", "must be a JSON object"),
        (b'{"prompt": "a", "prompt": "b"}', "line-9", "given twice"),
        (b"{}", "line-9", "either prompt or messages"),
        (b'{"custom_id": "c", "prompt": "a", "messages": []}', "c", "either prompt or messages"),
        (b'{"custom_id": 7, "prompt": "a"}', "line-9", "custom_id: must be a text"),
        (b'{"custom_id": "", "prompt": "a"}', "line-9", "custom_id: must be a text"),
        (b'{"custom_id": null, "prompt": "a"}', "line-9", "custom_id: must be a text"),
        (b'{"custom_id": "\\ud800", "prompt": "a"}', "line-9", "custom_id: is not Unicode"),
        (json.dumps(OPENAI | {"metadata": 1}).encode(), "a", "metadata: is no field"),
        (json.dumps(OPENAI | {"method": "GET"}).encode(), "a", "method: must be POST"),
        (json.dumps(OPENAI | {"url": "/v1/embeddings"}).encode(), "a", "url: must be /v1/chat"),
        (json.dumps(OPENAI | {"url": ["/v1/completions"]}).encode(), "a", "url: must be"),
        (json.dumps(OPENAI | {"body": "Hi"}).encode(), "a", "body: must be an object"),
        (json.dumps(OPENAI | {"body": {"prompt": "\ud800"}}).encode(), "a", "not Unicode"),
        (b'{"custom_id": "d", "prompt": "\\udfff"}', "d", "not Unicode"),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, bytes | str) else None,
)
def test_what_is_wrong_with_a_row_is_said_in_one_line(text, custom_id, message):
    with pytest.raises(RowError, match=message) as caught:
        parse_batch_row(text, 9)
    assert caught.value.custom_id == custom_id
    assert "\n" not in str(caught.value)


def test_texts_are_found_at_any_depth():
    assert list(texts_of([{"a": "x", "b": [1, {"c": "y"}]}, "z", None])) == ["x", "y", "z"]
