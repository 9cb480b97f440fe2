"""One line of a file of answers: whose it is, and its samples.

Two shapes may stand side by side, as `llama-jax batch` writes them. OpenAI's batch output:

    {"id", "custom_id", "response": {"status_code", "request_id", "body": {..., "choices": [...]}},
     "error": null}

and a plain one: {"custom_id", "text", "finish_reason", "usage"}, or for several samples
{"custom_id", "choices": [{"text", "finish_reason"}, ...], "usage"}. What a provider puts beside the
choices of a response is not looked at; every other unknown field is refused.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llama_jax.batch_files.json_lines import json_lines, refuse_unknown
from llama_jax.errors import InputError

_OPENAI_FIELDS = ("id", "custom_id", "response", "error")
_CHOICE_FIELDS = (
    "text",
    "finish_reason",
    "stop_reason",
    "logprobs",
    "prompt_logprobs",
    "tool_calls",
    "refusal",
)
_PLAIN_FIELDS = ("custom_id", "choices", "usage", *_CHOICE_FIELDS)
# How an answer ends that the model ended.
_WHOLE = ("stop", "tool_calls")


@dataclass(frozen=True)
class AnsweredSample:
    """One answer.

    Attributes:
      index: from 0, among those to the same question.
      text: without the tool calls; empty where there is none.
      finish_reason: `stop`, `length`, `tool_calls`, or a provider's own word.
      tool_calls: in OpenAI's shape.
    """

    index: int
    text: str
    finish_reason: str
    tool_calls: tuple[dict[str, Any], ...] = ()

    @property
    def is_whole(self) -> bool:
        """Whether the model ended it, and not a limit or a filter."""
        return self.finish_reason in _WHOLE

    @property
    def is_empty(self) -> bool:
        """Whether it says nothing and calls nothing."""
        return not self.tool_calls and not self.text.strip()

    @property
    def message(self) -> dict[str, Any]:
        """As a message of a dialog."""
        message: dict[str, Any] = {"role": "assistant", "content": self.text}
        return message | {"tool_calls": list(self.tool_calls)} if self.tool_calls else message

    @property
    def sha256(self) -> str:
        """Of its text, hexadecimal: tells in a file of scores which answer was scored."""
        return hashlib.sha256(self.text.encode(errors="surrogatepass")).hexdigest()


@dataclass(frozen=True)
class AnswerRow:
    """Attributes:
    line: in the file of answers, from 1.
    custom_id: of the question.
    samples: in the order of their index, which counts from 0.
    model: what the response calls its model; None in a plain row.
    body: of the response or the plain row, as it stands.
    num_bytes: of the file, this line and the blank ones before it.
    """

    line: int
    custom_id: str
    samples: tuple[AnsweredSample, ...]
    model: str | None
    body: dict[str, Any] = field(repr=False)
    num_bytes: int = 0


def read_answers(path: Path) -> Iterator[AnswerRow]:
    """The rows of a file, one at a time. Raises `InputError` that names the line and the field, and
    for a custom_id that comes twice."""
    seen: set[bytes] = set()
    for line in json_lines(path):
        try:
            row = parse_answer_row(line.fields, line.number, line.num_bytes)
            digest = hashlib.blake2b(
                row.custom_id.encode(errors="surrogatepass"), digest_size=16
            ).digest()
            if digest in seen:
                raise InputError(f"custom_id: {row.custom_id!r} comes twice; keep one of the rows")
        except InputError as error:
            raise InputError(f"{path}: line {line.number}: {error}") from None
        seen.add(digest)
        yield row


def parse_answer_row(fields: dict[str, Any], line: int, num_bytes: int = 0) -> AnswerRow:
    """The row in one object. Raises `InputError` that names the field."""
    custom_id = fields.get("custom_id")
    if not isinstance(custom_id, str) or not custom_id:
        raise InputError(f"custom_id: must be a text that is not empty, not {custom_id!r}")
    if "response" in fields:
        body = _response_body(fields)
        choices, model = _choices(body), body.get("model")
        samples = [_sample(choice, place) for place, choice in enumerate(choices)]
    else:
        refuse_unknown(fields, _PLAIN_FIELDS, _refuse)
        body, model = fields, None
        if "choices" in fields:
            samples = [_choice(choice, place) for place, choice in enumerate(_choices(fields))]
        else:
            samples = [_made(fields, fields.get("text"), 0, "the row")]
    if not isinstance(model, str | None):
        _refuse("model: must be text")
    samples.sort(key=lambda sample: sample.index)
    if [sample.index for sample in samples] != list(range(len(samples))):
        _refuse("choices: their indices must be 0, 1, 2 and so on, each once")
    return AnswerRow(line, custom_id, tuple(samples), model, body, num_bytes)


def _response_body(fields: dict[str, Any]) -> dict[str, Any]:
    refuse_unknown(fields, _OPENAI_FIELDS, _refuse)
    response = fields["response"]
    if fields.get("error") is not None or not isinstance(response, dict):
        _refuse("error: the row has failed; rows that failed belong in a file of their own")
    if response.get("status_code") != 200 or not isinstance(response.get("body"), dict):
        _refuse("response: must have status_code 200 and a body; the row has failed")
    return response["body"]


def _choices(body: dict[str, Any]) -> list[dict[str, Any]]:
    choices = body.get("choices")
    if not isinstance(choices, list) or not choices:
        _refuse("choices: must be a list that is not empty")
    for place, choice in enumerate(choices):
        if not isinstance(choice, dict):
            _refuse(f"choices[{place}]: must be an object")
    return choices


def _sample(choice: dict[str, Any], place: int) -> AnsweredSample:
    """A choice of OpenAI's: of a chat, or of a completion."""
    where = f"choices[{place}]"
    index = choice.get("index", place)
    if type(index) is not int:
        _refuse(f"{where}.index: must be a whole number")
    if "message" not in choice:
        return _made(choice, choice.get("text"), index, where)
    message = choice["message"]
    if not isinstance(message, dict):
        _refuse(f"{where}.message: must be an object")
    merged = {**choice, "tool_calls": message.get("tool_calls")}
    return _made(merged, message.get("content"), index, f"{where}.message")


def _choice(choice: dict[str, Any], place: int) -> AnsweredSample:
    """One of several of a plain row."""
    where = f"choices[{place}]"
    refuse_unknown(choice, _CHOICE_FIELDS, lambda reason: _refuse(f"{where}.{reason}"))
    return _made(choice, choice.get("text"), place, where)


def _made(choice: dict[str, Any], text: Any, index: int, where: str) -> AnsweredSample:
    calls = choice.get("tool_calls") or ()
    if not isinstance(calls, list | tuple) or not all(isinstance(call, dict) for call in calls):
        _refuse(f"{where}.tool_calls: must be a list of objects")
    if not isinstance(text, str) and not (text is None and calls):
        _refuse(f"{where}: has no text")
    finish_reason = choice.get("finish_reason")
    if not isinstance(finish_reason, str):
        _refuse(f"{where}.finish_reason: must be text, not {finish_reason!r}")
    return AnsweredSample(index, text or "", finish_reason, tuple(calls))


def _refuse(reason: str) -> None:
    raise InputError(reason)
