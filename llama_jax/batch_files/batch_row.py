"""One line of the input: whose it is, what it asks, and of which kind it is.

Two kinds may stand side by side in a file. OpenAI's batch format:

    {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {...}}

and a plain one, which is the body itself: `{"prompt": "..."}` or `{"messages": [...]}`, with any
sampling field beside it and a `custom_id` if it has one. What the fields mean, and which are
refused, is `infer/protocol`'s to say.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from llama_jax.errors import InputError
from llama_jax.json_file import is_unicode, parse_json

MAX_ROW_BYTES = 1 << 24
"""A longer line fails: 128K tokens are under 1 MB of text, and memory must stay bounded."""

CHAT_URL, COMPLETION_URL = "/v1/chat/completions", "/v1/completions"
_OPENAI_FIELDS = ("custom_id", "method", "url", "body")


class RowError(InputError):
    """A row that cannot be answered; the other rows can. `custom_id` is the row's."""

    def __init__(self, message: str, custom_id: str):
        super().__init__(message)
        self.custom_id = custom_id


@dataclass(frozen=True)
class BatchRow:
    """One question.

    Attributes:
      line: its number in the input, from 1.
      custom_id: the user's name for it, or `line-N`.
      url: which of OpenAI's two interfaces `body` is for; a plain row with a `prompt` is a
        completion.
      is_plain: whether the answer is to be a plain object.
      body: fields of the question.
    """

    line: int
    custom_id: str
    url: Literal["/v1/chat/completions", "/v1/completions"]
    is_plain: bool
    body: dict[str, Any]

    @property
    def metadata(self) -> dict[str, Any]:
        """What the row says to its readers and not to the model, such as a `category`, or how its
        answers are verified; empty where it says nothing."""
        metadata = self.body.get("metadata")
        return metadata if isinstance(metadata, dict) else {}

    @property
    def category(self) -> str | None:
        """`metadata.category`, if the row has one. Raises `RowError` if that is no text."""
        category = self.metadata.get("category")
        if not isinstance(category, str | None) or category == "":
            raise RowError("metadata.category: must be a text that is not empty", self.custom_id)
        return category


def parse_batch_row(text: bytes, line: int) -> BatchRow:
    """The row in one line of the input. Raises `RowError` that names the field."""
    custom_id = f"line-{line}"
    try:
        fields = parse_json(text, "the row")
        custom_id = _custom_id(fields, custom_id)
        if not all(is_unicode(text) for text in texts_of(fields)):
            raise InputError("the row: a text is not Unicode (half of a surrogate pair)")
        if any(name in fields for name in ("method", "url", "body")):
            return BatchRow(line, custom_id, _checked_url(fields), False, fields["body"])
        body = {name: value for name, value in fields.items() if name != "custom_id"}
        if ("prompt" in body) == ("messages" in body):
            raise InputError(
                "a plain row has either prompt or messages; one in OpenAI's batch format has "
                "custom_id, method, url and body"
            )
        url = COMPLETION_URL if "prompt" in body else CHAT_URL
        return BatchRow(line, custom_id, url, True, body)
    except InputError as error:
        raise RowError(str(error), custom_id) from None


def texts_of(value: Any) -> Iterator[str]:
    """All texts inside a JSON value, keys left out, in their order; it may be nested deeply."""
    left = [value]
    while left:
        value = left.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict | list):
            left += reversed(value.values() if isinstance(value, dict) else value)


def _custom_id(fields: dict[str, Any], default: str) -> str:
    custom_id = fields.get("custom_id", default)
    if not isinstance(custom_id, str) or not custom_id:
        raise InputError(f"custom_id: must be a text that is not empty, not {custom_id!r}")
    if not is_unicode(custom_id):
        raise InputError("custom_id: is not Unicode text (half of a surrogate pair)")
    return custom_id


def _checked_url(fields: dict[str, Any]) -> str:
    if unknown := sorted(fields.keys() - set(_OPENAI_FIELDS)):
        raise InputError(
            f"{unknown[0]}: is no field of OpenAI's batch format, which has "
            f"{', '.join(_OPENAI_FIELDS)}"
        )
    if fields.get("method") != "POST":
        raise InputError(f"method: must be POST, not {fields.get('method')!r}")
    if fields.get("url") not in (CHAT_URL, COMPLETION_URL):
        raise InputError(f"url: must be {CHAT_URL} or {COMPLETION_URL}, not {fields.get('url')!r}")
    if not isinstance(fields.get("body"), dict):
        raise InputError("body: must be an object")
    return fields["url"]
