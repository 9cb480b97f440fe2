"""The fields of one line of JSONL: which there may be, and what they say of how its answers ended.

    {..., "id": any, "category": "...", "finish_reason": "stop", "provenance": {...}}

are allowed in every line beside what it is about. A field that nothing would read is refused by
name, so that a misspelt one is not lost; `--ignore-fields` names those that are known to be of no
use.
"""

from collections.abc import Collection, Mapping
from typing import Any

from llama_jax.chat.tool_definitions import functions_of
from llama_jax.errors import InputError
from llama_jax.json_file import parse_json
from train.data.examples.refused_example import RefusedExample, refused_for

_OF_EVERY_LINE = ("id", "category", "finish_reason", "provenance")
# Of OpenAI's, those with which an answer has ended by itself.
_ENDED = ("stop", "tool_calls", "function_call")


def parse_line(text: bytes) -> dict[str, Any]:
    """The JSON object of a line. Raises `RefusedExample` if it is none."""
    try:
        text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RefusedExample("not UTF-8", f"not UTF-8 text ({error})") from None
    try:
        return parse_json(text, "the line")
    except InputError as error:
        message = str(error).removeprefix("the line: ")
        raise RefusedExample("not a JSON object", message) from None


def check_fields(
    fields: Mapping[str, Any], known: Collection[str], *, ignored: Collection[str]
) -> None:
    """Raises `RefusedExample` for a field that is neither `known`, nor of every line, nor
    `ignored`; and for a `category` or `provenance` that is none."""
    for name in fields:
        if name not in known and name not in _OF_EVERY_LINE and name not in ignored:
            listed = ", ".join((*known, *_OF_EVERY_LINE))
            raise RefusedExample(
                "fields",
                f"{name}: unknown field; known: {listed}. If nothing is lost without it, give "
                f"--ignore-fields {name}",
            )
    if not isinstance(fields.get("category"), str | None):
        raise RefusedExample("fields", "category: must be text")
    if not isinstance(fields.get("provenance"), dict | None):
        raise RefusedExample("fields", "provenance: must be an object")


def tools_of(fields: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """The tool definitions of a line, in OpenAI's shape; None if it has none."""
    tools = fields.get("tools")
    if tools is None or tools == []:
        return None
    with refused_for("tools"):
        if not isinstance(tools, list):
            raise InputError("tools: must be a list of tool definitions")
        functions_of(tools)
    return tools


def check_finish_reasons(fields: Mapping[str, Any], answers: Collection[str] = ()) -> None:
    """Raises `RefusedExample` if an answer was cut off where the model reached a limit.

    Looked for are `finish_reason`, `provenance.finish_reason`, and for each of the fields `answers`
    `provenance.FIELD.finish_reason`.
    """
    provenance = fields.get("provenance") or {}
    places = {"finish_reason": fields, "provenance.finish_reason": provenance}
    places |= {f"provenance.{name}.finish_reason": provenance.get(name) for name in answers}
    for place, holder in places.items():
        finish_reason = holder.get("finish_reason") if isinstance(holder, dict) else None
        if finish_reason is not None and finish_reason not in _ENDED:
            raise RefusedExample(
                "truncated answer",
                f"{place}: {finish_reason!r}; an answer that did not end by itself teaches the "
                f"model not to end (known as ended: {', '.join(_ENDED)})",
            )
