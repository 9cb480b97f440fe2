"""Holding back text that may be a tool call, while an answer is still being written.

A call is not content: what has gone out as content cannot be taken back. Most shapes of a call (see
`llama_jax.chat.tool_calls`) are the whole message, so they show at its start; `<function=` may come
after text. Whatever cannot be a call goes out at once.
"""

import re

from llama_jax.chat import ToolCall, parse_tool_calls
from llama_jax.chat.messages import BUILTIN_ARGUMENT

_FUNCTION = "<function="
_BUILTIN_STARTS = tuple(f"{name}.call(" for name in BUILTIN_ARGUMENT)
_JSON_KEYS = ('"type"', '"name"', '"parameters"')
# `[f(`, or a beginning of it.
_PYTHON_LIST = re.compile(r"\[\s*(?:[^\W\d][\w.]*\s*(?P<call>\()?)?")


class ToolCallHold:
    """One message's text on its way out."""

    def __init__(self, *, python_tag: bool) -> None:
        """Args: whether the message began with the token `<|python_tag|>`: then all of it is a
        call."""
        self._python_tag = python_tag
        # Nothing is out yet, and the message may be one whole call.
        self._may_be_whole = True
        # What is held is a call for all that can be known before the end.
        self._is_decided = python_tag
        self._held = ""

    def push(self, piece: str) -> str:
        """What may go out, now that `piece` has come."""
        self._held += piece
        if self._is_decided:
            return ""
        if self._may_be_whole:
            verdict = _may_be_whole_call(self._held.lstrip())
            self._is_decided = verdict is True
            if verdict is not False:
                return ""
            self._may_be_whole = False
        return self._release()

    def finish(self, *, parse: bool) -> tuple[str, tuple[ToolCall, ...]]:
        """The text that is left, and the calls.

        Args:
          parse: if not, there are no calls: the message was cut off, and half of a call must not be
            acted on.
        """
        if not parse:
            return self._held, ()
        if self._may_be_whole:
            return parse_tool_calls(self._held, python_tag=self._python_tag)
        # A letter in place of the text that is out keeps the white space behind it.
        content, calls = parse_tool_calls("x" + self._held)
        return content[1:], calls

    def _release(self) -> str:
        """All before `<function=`, or before what may begin it, but for white space there, which
        belongs to neither when a call follows."""
        start = self._held.find(_FUNCTION)
        self._is_decided = start >= 0
        if start < 0:
            lengths = range(len(_FUNCTION) - 1, -1, -1)
            start = len(self._held) - next(
                length for length in lengths if self._held.endswith(_FUNCTION[:length])
            )
        start = len(self._held[:start].rstrip())
        out, self._held = self._held[:start], self._held[start:]
        return out


def _may_be_whole_call(text: str) -> bool | None:
    """Whether a message that begins with `text`, white space before it taken away, is one call:
    None where more must come to say, True where only the end can say."""
    if not text:
        return None
    if text[0] == "{":
        return _begins_with_any(text[1:].lstrip(), _JSON_KEYS)
    if text[0] == "[":
        match = _PYTHON_LIST.match(text)
        if match["call"]:
            return True
        return None if match.end() == len(text) else False
    return _begins_with_any(text, _BUILTIN_STARTS)


def _begins_with_any(text: str, starts: tuple[str, ...]) -> bool | None:
    if text.startswith(starts):
        return True
    return None if any(start.startswith(text) for start in starts) else False
