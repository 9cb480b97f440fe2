"""Rows of a plain batch file: `{"prompt": ...}` or `{"messages": ...}`, and sampling fields."""

from collections.abc import Mapping
from typing import Any

from infer.protocol.parsed_request import ParsedRequest
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
    ...
