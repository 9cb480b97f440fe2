"""A dialog as Llama Guard reads it: a user and an agent, in turns, the last of which is judged.

The model was tuned on two speakers who alternate, so other dialogs are brought into that form:

- system messages are the operator's own and are left out;
- a tool's message is what the model is given to read, and counts as the user's;
- what the assistant asks a tool to do is written out after its text, as JSON;
- messages of one side that follow each other are one turn, with a blank line between them.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from llama_jax.chat import Message
from llama_jax.errors import InputError

Judged = Literal["last", "user", "agent"]


@dataclass(frozen=True)
class Turn:
    """What one side says before the other does."""

    role: Literal["user", "agent"]
    text: str


def guard_turns(messages: Sequence[Message], *, judged: Judged = "last") -> tuple[Turn, ...]:
    """The turns up to the one that is judged, which is the last of them.

    Args:
      judged: the last turn, or the last of that side: what follows it is not shown to the guard.

    Raises `InputError` if there is no such turn, if it is empty, or if the agent speaks first.
    """
    turns: list[Turn] = []
    for message in messages:
        if message.role == "system":
            continue
        role = "agent" if message.role == "assistant" else "user"
        text = _text(message)
        if turns and turns[-1].role == role:
            text = f"{turns.pop().text}\n\n{text}"
        turns.append(Turn(role, text))
    while turns and judged not in ("last", turns[-1].role):
        turns.pop()
    if not turns:
        side = "user or assistant" if judged == "last" else judged
        raise InputError(f"messages: there is no {side} message to judge")
    if turns[0].role == "agent":
        raise InputError(
            "messages: the assistant speaks first, and Llama Guard judges dialogs that a user "
            "begins; put the user's message before it"
        )
    if not turns[-1].text.strip():
        raise InputError(f"messages: the last {turns[-1].role} message is empty: nothing to judge")
    return tuple(turns)


def _text(message: Message) -> str:
    calls = [
        json.dumps({"name": call.name, "parameters": call.arguments}, ensure_ascii=False)
        for call in message.tool_calls
    ]
    return "\n\n".join(text for text in (message.content, *calls) if text)
