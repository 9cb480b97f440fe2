"""Rows of a plain batch file: `{"prompt": ...}` or `{"messages": ...}`, and sampling fields."""

from collections.abc import Mapping
from typing import Any

from infer.protocol.chat_request import parse_chat
from infer.protocol.completion_request import parse_completion
from infer.protocol.parsed_request import ParsedRequest
from infer.protocol.request_error import RequestError
from infer.protocol.served_model import ServedModel


def parse_plain_row(
    row: Mapping[str, Any],
    model: ServedModel,
    *,
    default_seed: int,
    default_max_tokens: int | None = None,
) -> ParsedRequest:
    """A chat request where the row has `messages`, a completion where it has `prompt`.

    The fields are those of `parse_chat` and `parse_completion`, arguments and errors too. A
    `stream` that is true is refused: a row has no one to stream to.
    """
    if not isinstance(row, Mapping) or ("prompt" in row) == ("messages" in row):
        raise RequestError('a row is an object with either "prompt" or "messages"')
    if row.get("stream"):
        raise RequestError("stream: a row is answered whole; leave it out", param="stream")
    parse = parse_chat if "messages" in row else parse_completion
    return parse(row, model, default_seed=default_seed, default_max_tokens=default_max_tokens)
