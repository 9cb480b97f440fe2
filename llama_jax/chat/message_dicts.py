"""Messages from and to the dicts of OpenAI's chat interface, which Hugging Face's templates take.

A field that nothing would read is refused by name, so a misspelt one cannot be lost.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from llama_jax.chat.messages import BUILTIN_ARGUMENT, ROLES, Message, ToolCall
from llama_jax.errors import InputError

_FIELDS_OF_ROLE = {
    "system": {"role", "content"},
    "user": {"role", "content"},
    "assistant": {"role", "content", "tool_calls", "stop_reason"},
    "tool": {"role", "content", "name", "tool_call_id"},
}


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
