"""What is said in a dialog: messages and tool calls, checked once, where they enter.

Dialogs arrive as the dicts of OpenAI's chat interface, which Hugging Face templates also take. They
become frozen dataclasses here and every later step may rely on them: roles are known, text can be
written as UTF-8, tool arguments are JSON. A field that nothing would read is refused by name, so a
misspelt one cannot be lost.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from llama_jax.errors import InputError

Role = Literal["system", "user", "assistant", "tool"]
StopReason = Literal["end_of_turn", "end_of_message"]

ROLES = ("system", "user", "assistant", "tool")
BUILTIN_ARGUMENT = {
    "brave_search": "query",
    "wolfram_alpha": "query",
    "photogen": "query",
    "code_interpreter": "code",
}
"""Llama 3.1's built-in tools, and the one argument each takes."""

# Nothing sensible nests deeper, and Python's own JSON and literal parsers recurse.
MAX_ARGUMENT_DEPTH = 100
# Python refuses to print integers of more than 4300 digits; this is about 1200.
MAX_INTEGER_BITS = 4096

_FIELDS_OF_ROLE = {
    "system": {"role", "content"},
    "user": {"role", "content"},
    "assistant": {"role", "content", "tool_calls", "stop_reason"},
    "tool": {"role", "content", "name", "tool_call_id"},
}


@dataclass(frozen=True)
class ToolCall:
    """One call that the assistant asks for.

    Attributes:
      name: the tool's name.
      arguments: argument name -> JSON value.
      call_id: what a tool message answers to; no token is made of it in Llama 3.1's format.
    """

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)
    call_id: str | None = None

    def __post_init__(self):
        if not isinstance(self.name, str) or not self.name or not is_json_value(self.name):
            raise InputError(f"tool call: name must be a non-empty text, got {self.name!r}")
        if not isinstance(self.arguments, dict) or not is_json_value(self.arguments):
            raise InputError(f"tool call {self.name}: arguments must be an object of JSON values")


@dataclass(frozen=True)
class Message:
    """One message of a dialog.

    Attributes:
      role: `system`, `user`, `assistant` or `tool` (which Llama 3.1 writes `ipython`).
      content: the text.
      tool_calls: what the assistant asks to have run.
      stop_reason: how an assistant message ends: the turn is over, or (`end_of_message`) it goes on
        when the tool has answered.
      name: of a tool message, the tool's name.
      tool_call_id: of a tool message, the `call_id` it answers.
    """

    role: Role
    content: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    stop_reason: StopReason = "end_of_turn"
    name: str | None = None
    tool_call_id: str | None = None

    def __post_init__(self):
        if self.role not in ROLES:
            raise InputError(f"role: {self.role!r} is unknown; use one of {', '.join(ROLES)}")
        if not isinstance(self.content, str):
            raise InputError(f"content: must be text, got {type(self.content).__name__}")
        if not is_json_value(self.content):
            raise InputError("content: holds half a surrogate pair, which is not Unicode text")
        if self.stop_reason not in ("end_of_turn", "end_of_message"):
            raise InputError(
                f"stop_reason: {self.stop_reason!r} is unknown; use end_of_turn or end_of_message"
            )
        if self.role != "assistant" and (self.tool_calls or self.stop_reason != "end_of_turn"):
            raise InputError(f"tool_calls and stop_reason: belong to assistant, not to {self.role}")
        if self.role != "tool" and (self.name is not None or self.tool_call_id is not None):
            raise InputError(f"name and tool_call_id: belong to tool, not to {self.role}")


def is_json_value(value: Any) -> bool:
    """Whether `value` can be written as JSON and read back the same: no NaN, no half surrogate
    pair, no tuple, no nesting deeper than `MAX_ARGUMENT_DEPTH`."""
    level = [value]
    for _ in range(MAX_ARGUMENT_DEPTH):
        below = []
        for item in level:
            if isinstance(item, str):
                if not _is_unicode(item):
                    return False
            elif isinstance(item, float):
                if not math.isfinite(item):
                    return False
            elif isinstance(item, int):
                if item.bit_length() > MAX_INTEGER_BITS:
                    return False
            elif isinstance(item, list):
                below.extend(item)
            elif isinstance(item, dict):
                if not all(isinstance(key, str) for key in item):
                    return False
                below.extend(item.keys())
                below.extend(item.values())
            elif item is not None:
                return False
        if not below:
            return True
        level = below
    return False


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def messages_from_dicts(dicts: Sequence[Mapping[str, Any]]) -> list[Message]:
    """Messages of OpenAI-style dicts.

    Known fields are `role` (also `ipython` for `tool`), `content` (a text, or a list of text parts,
    which are joined), `tool_calls`, `tool_call_id`, `name`, and ours: `stop_reason`. A known field
    that is None counts as absent. Without `stop_reason`, a message that calls a built-in tool is
    `end_of_message`, as Llama 3.1's published prompt format writes it, any other `end_of_turn`.

    Raises:
      InputError: naming the message by its index, and the field.
    """
    if isinstance(dicts, str | Mapping) or not isinstance(dicts, Sequence) or not dicts:
        raise InputError("messages: must be a non-empty list of messages")
    messages = []
    for index, fields in enumerate(dicts):
        try:
            messages.append(_message_from_dict(fields))
        except InputError as error:
            raise InputError(f"messages[{index}].{error}") from None
    return messages


def message_to_dict(message: Message) -> dict[str, Any]:
    """The dict that a chat template is given: OpenAI's shape, arguments as an object (what Hugging
    Face asks for), absent fields left out."""
    fields: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        fields["tool_calls"] = [_tool_call_to_dict(call) for call in message.tool_calls]
    if message.name is not None:
        fields["name"] = message.name
    if message.tool_call_id is not None:
        fields["tool_call_id"] = message.tool_call_id
    return fields


def _tool_call_to_dict(call: ToolCall) -> dict[str, Any]:
    fields = {
        "type": "function",
        "function": {"name": call.name, "arguments": dict(call.arguments)},
    }
    return fields if call.call_id is None else {"id": call.call_id, **fields}


def _message_from_dict(fields: Mapping[str, Any]) -> Message:
    if not isinstance(fields, Mapping):
        raise InputError(f"role: missing; a message is an object, got {type(fields).__name__}")
    role = "tool" if fields.get("role") == "ipython" else fields.get("role")
    if not isinstance(role, str) or role not in ROLES:
        raise InputError(f"role: {role!r} is unknown; use one of {', '.join(ROLES)}")
    for name in fields:
        if name not in _FIELDS_OF_ROLE[role]:
            known = ", ".join(sorted(_FIELDS_OF_ROLE[role]))
            raise InputError(f"{name}: unknown field of a message of role {role}; known: {known}")
    given = {name: value for name, value in fields.items() if value is not None}
    tool_calls = _tool_calls_from_dicts(given.get("tool_calls", []))
    if "content" not in given and not tool_calls:
        raise InputError("content: missing")
    for name in ("name", "tool_call_id"):
        if not isinstance(given.get(name, ""), str):
            raise InputError(f"{name}: must be text")
    calls_builtin = any(call.name in BUILTIN_ARGUMENT for call in tool_calls)
    default_stop_reason = "end_of_message" if calls_builtin else "end_of_turn"
    return Message(
        role=role,
        content=_content_text(given.get("content", "")),
        tool_calls=tool_calls,
        stop_reason=given.get("stop_reason", default_stop_reason),
        name=given.get("name"),
        tool_call_id=given.get("tool_call_id"),
    )


def _content_text(content: Any) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise InputError(f"content: must be text or a list, got {type(content).__name__}")
    texts = []
    for part in content:
        if not isinstance(part, Mapping) or part.get("type") != "text":
            raise InputError("content: only parts of type text are supported")
        if set(part) != {"type", "text"} or not isinstance(part["text"], str):
            raise InputError("content: a text part has the fields type and text, and no others")
        texts.append(part["text"])
    return "".join(texts)


def _tool_calls_from_dicts(dicts: Any) -> tuple[ToolCall, ...]:
    if not isinstance(dicts, list):
        raise InputError("tool_calls: must be a list")
    calls = []
    for index, fields in enumerate(dicts):
        where = f"tool_calls[{index}]"
        if not isinstance(fields, Mapping) or not isinstance(fields.get("function"), Mapping):
            raise InputError(f"{where}.function: missing")
        function = fields["function"]
        for name in fields:
            if name not in ("id", "type", "function"):
                raise InputError(f"{where}.{name}: unknown field; known: id, type, function")
        for name in function:
            if name not in ("name", "arguments"):
                raise InputError(f"{where}.function.{name}: unknown field; known: name, arguments")
        if fields.get("type", "function") != "function":
            raise InputError(f"{where}.type: must be function, got {fields['type']!r}")
        if not isinstance(fields.get("id"), str | None):
            raise InputError(f"{where}.id: must be text")
        arguments = function.get("arguments", {})
        if isinstance(arguments, str):
            try:
                arguments = json.loads(arguments)
            except (ValueError, RecursionError):
                raise InputError(f"{where}.function.arguments: is not JSON") from None
        try:
            calls.append(ToolCall(function.get("name"), arguments, fields.get("id")))
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
    return tuple(calls)
