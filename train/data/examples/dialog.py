"""A dialog that can be trained on: who speaks when, and that the assistant says something.

    system?  (user  assistant (tool+ assistant)*)+

A tool answers a message that calls one. Anything else is refused: a chat template would write most
of it down without a word, and the model would learn a dialog that never happens.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from llama_jax.chat import Message
from train.data.examples.refused_example import RefusedExample

# Role -> the roles that may come before it; None is the beginning.
_MAY_FOLLOW = {
    "system": (None,),
    "user": (None, "system", "assistant"),
    "assistant": ("user", "tool"),
    "tool": ("assistant", "tool"),
}


class Dialog(NamedTuple):
    """Attributes:
    messages: of which the last is the assistant's.
    tools: definitions in OpenAI's shape, or None.
    """

    messages: tuple[Message, ...]
    tools: list[dict[str, Any]] | None


def check_dialog(messages: Sequence[Message], *, field: str) -> None:
    """Raises `RefusedExample`, naming `field` and the index, if `messages` is no such dialog."""
    if not any(message.role == "assistant" for message in messages):
        raise RefusedExample(
            "no assistant turn",
            f"{field}: the assistant says nothing, so nothing can be learned",
        )
    _check_turns(messages, field)
    if messages[-1].role != "assistant":
        raise RefusedExample(
            "role order",
            f"{field}[{len(messages) - 1}]: the dialog ends with a message of {messages[-1].role}, "
            "which nobody answers; take it out",
        )


def check_prompt(messages: Sequence[Message], *, field: str) -> None:
    """Raises `RefusedExample`, naming `field` and the index, if `messages` is not what comes before
    an answer in such a dialog."""
    _check_turns(messages, field)
    if messages[-1].role not in ("user", "tool"):
        raise RefusedExample(
            "role order",
            f"{field}[{len(messages) - 1}]: a prompt ends with a message of user or of tool, not "
            f"of {messages[-1].role}",
        )


def _check_turns(messages: Sequence[Message], field: str) -> None:
    before: Message | None = None
    called: set[str] = set()
    for index, message in enumerate(messages):
        place = f"{field}[{index}]"
        _check_order(before, message, place)
        if message.role == "assistant":
            check_answer(message, field=place)
        called |= {call.call_id for call in message.tool_calls if call.call_id is not None}
        if message.tool_call_id is not None and message.tool_call_id not in called:
            raise RefusedExample(
                "tool calls",
                f"{place}.tool_call_id: no call before it has the id {message.tool_call_id!r}",
            )
        before = message


def _check_order(before: Message | None, message: Message, place: str) -> None:
    role = None if before is None else before.role
    if role not in _MAY_FOLLOW[message.role]:
        where = "at the beginning" if role is None else f"after one of {role}"
        raise RefusedExample("role order", f"{place}: a message of {message.role} {where}")
    if role != "assistant":
        return
    waits = bool(before.tool_calls) or before.stop_reason == "end_of_message"
    if message.role == "tool" and not waits:
        raise RefusedExample(
            "role order", f"{place}: a tool answers, and the assistant has called none"
        )
    if message.role == "user" and waits:
        raise RefusedExample(
            "role order", f"{place}: a user speaks before the tool that was called answers"
        )


def check_answer(message: Message, *, field: str) -> None:
    """Raises `RefusedExample` if the assistant's message is empty."""
    if not message.content.strip() and not message.tool_calls:
        raise RefusedExample("empty answer", f"{field}: the assistant's message is empty")
