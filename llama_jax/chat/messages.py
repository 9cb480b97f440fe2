"""What is said in a dialog: messages and tool calls, checked once, where they are made.

Every later step may rely on them: roles are known, text can be written as UTF-8, tool arguments are
JSON. `message_dicts.py` makes them of the dicts that come from outside.
"""

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from llama_jax.errors import InputError
from llama_jax.json_file import is_unicode

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
                if not is_unicode(item):
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
