"""ShareGPT's dialogs: `{"conversations": [{"from": "human", "value": "..."}, ...]}`.

The shape has no place for tool calls. Where a tool answers, the assistant's text before it must be
a call in one of the shapes that a Llama writes (`llama_jax/chat/tool_calls.py`), and becomes one.
"""

from collections.abc import Mapping
from typing import Any

from llama_jax.chat import Message, messages_from_dicts, parse_tool_calls
from llama_jax.errors import InputError
from train.data.examples.refused_example import RefusedExample, refused_for

# Speaker -> role. The first four are the format's, the others are as common.
_ROLES = {
    "human": "user",
    "gpt": "assistant",
    "system": "system",
    "tool": "tool",
    "user": "user",
    "assistant": "assistant",
}


def messages_from_conversations(turns: Any) -> list[Message]:
    """The messages of `conversations`.

    Raises:
      RefusedExample: naming the turn by its index, and the field.
    """
    if not isinstance(turns, list) or not turns:
        raise RefusedExample("messages", "conversations: must be a non-empty list of turns")
    dicts = [_turn(turn, f"conversations[{index}]") for index, turn in enumerate(turns)]
    with refused_for("messages"):
        try:
            messages = messages_from_dicts(dicts)
        except InputError as error:
            raise InputError(str(error).replace("messages[", "conversations[", 1)) from None
    return [
        _with_calls(message, f"conversations[{index}]")
        if [following.role for following in messages[index + 1 : index + 2]] == ["tool"]
        else message
        for index, message in enumerate(messages)
    ]


def _turn(turn: Any, place: str) -> dict[str, str]:
    if not isinstance(turn, Mapping):
        raise RefusedExample("messages", f"{place}: must be an object with from and value")
    for name in turn:
        if name not in ("from", "value"):
            raise RefusedExample("messages", f"{place}.{name}: unknown field; known: from, value")
    speaker = turn.get("from")
    if not isinstance(speaker, str) or speaker not in _ROLES:
        raise RefusedExample(
            "messages", f"{place}.from: {speaker!r} is no known speaker; use {', '.join(_ROLES)}"
        )
    if not isinstance(turn.get("value"), str):
        raise RefusedExample("messages", f"{place}.value: must be text")
    return {"role": _ROLES[speaker], "content": turn["value"]}


def _with_calls(message: Message, place: str) -> Message:
    if message.role != "assistant":
        return message
    content, calls = parse_tool_calls(message.content)
    if not calls:
        raise RefusedExample(
            "tool calls",
            f"{place}.value: a tool answers it, and it can be read as no tool call",
        )
    return messages_from_dicts(
        [
            {
                "role": "assistant",
                "content": content,
                "tool_calls": [
                    {"function": {"name": call.name, "arguments": call.arguments}} for call in calls
                ],
            }
        ]
    )[0]
