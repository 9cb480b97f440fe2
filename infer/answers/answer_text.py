"""One sample's text: ids go in one by one, what may be shown of their text comes out.

Three things hold text back, one behind the other: a character that is not complete, what may begin
a stop string, what may be a tool call. Ids (and their log-probabilities) go out with their text.
"""

from collections import deque
from dataclasses import dataclass
from typing import Literal

from infer.answers.answer_request import AnswerRequest
from infer.answers.stop_strings import FoundStop, StopStrings
from infer.answers.tool_call_hold import ToolCallHold
from infer.engine.request import TokenLogprob
from llama_jax.chat import ToolCall
from llama_jax.tokenizers.incremental_decoder import IncrementalDecoder
from llama_jax.tokenizers.interface import Tokenizer

_PYTHON_TAG = "<|python_tag|>"


@dataclass
class _WaitingToken:
    """An id whose text is not out: characters `start` to `end` of the answer, `end` None until its
    character is complete."""

    token: int
    logprob: TokenLogprob | None
    start: int
    end: int | None = None


@dataclass(frozen=True)
class ShownText:
    """A part of an answer that may be shown, and the ids that go with it."""

    text: str
    tokens: tuple[int, ...]
    logprobs: tuple[TokenLogprob, ...]
    tool_calls: tuple[ToolCall, ...] = ()


class AnswerText:
    """The text of one sample of `request`.

    Attributes:
      num_tokens: pushed so far.
      found_stop: the stop string that ended the answer; nothing is pushed after it.
    """

    def __init__(self, request: AnswerRequest, tokenizer: Tokenizer) -> None:
        self.num_tokens = 0
        self.found_stop: FoundStop | None = None
        self._request = request
        self._decoder = IncrementalDecoder(tokenizer, skip_special=request.skip_special)
        self._stops = StopStrings(request.stop_strings)
        self._tools = ToolCallHold(python_tag=False) if request.parse_tools else None
        self._python_tag = tokenizer.special_tokens.get(_PYTHON_TAG)
        self._pending = ""  # may begin a stop string
        self._length = 0  # of the text so far
        self._num_out = 0  # of its characters
        self._waiting: deque[_WaitingToken] = deque()

    def push(self, token: int, logprob: TokenLogprob | None) -> None:
        """Takes the next id."""
        self.num_tokens += 1
        self._waiting.append(_WaitingToken(token, logprob, self._length))
        if self._tools is not None and self.num_tokens == 1 and token == self._python_tag:
            # It marks a call and is no part of it, wherever special tokens have text.
            self._tools = ToolCallHold(python_tag=True)
            return
        self._extend(self._decoder.push(token))

    def shown(self) -> ShownText:
        """What may be shown by now."""
        num_ready = len(self._pending) - self._stops.num_held
        text, self._pending = self._pending[:num_ready], self._pending[num_ready:]
        if self._tools is not None:
            text = self._tools.push(text)
        self._num_out += len(text)
        return ShownText(text, *self._tokens_out())

    def finish(
        self, reason: Literal["stop", "length"], *, stop_token: int | None = None
    ) -> ShownText:
        """The rest, tool calls included.

        Args:
          reason: why the engine ended; does not matter after `found_stop`.
          stop_token: the id that stopped it, whose text `include_stop` wants.
        """
        if self.found_stop is None:
            if stop_token is not None and self._request.include_stop:
                self._extend(self._decoder.push(stop_token))
            self._extend(self._decoder.finish())
        if self.found_stop is not None:
            self._cut()
        calls: tuple[ToolCall, ...] = ()
        text = self._pending
        if self._tools is not None:
            text = self._tools.push(text)
            is_whole = reason == "stop" or self.found_stop is not None
            rest, calls = self._tools.finish(parse=is_whole)
            text += rest
        return ShownText(text, *self._tokens_out(all=True), calls)

    def _extend(self, piece: str) -> None:
        if not piece or self.found_stop is not None:
            return
        self._pending += piece
        self._length += len(piece)
        for waiting in reversed(self._waiting):
            if waiting.end is not None:
                break
            waiting.end = self._length
        may_stop = self.num_tokens > self._request.min_new_tokens
        self.found_stop = self._stops.push(piece, may_stop=may_stop)

    def _cut(self) -> None:
        """Takes the stop string away, and the ids that lie wholly behind the cut."""
        stop = self.found_stop
        end = stop.end if self._request.include_stop else stop.start
        self._pending = self._pending[: len(self._pending) - (self._length - end)]
        while self._waiting and self._waiting[-1].start >= end:
            self._waiting.pop()

    def _tokens_out(self, *, all: bool = False) -> tuple[tuple[int, ...], tuple[TokenLogprob, ...]]:
        out = []
        while self._waiting and (all or self._is_out(self._waiting[0])):
            out.append(self._waiting.popleft())
        logprobs = tuple(waiting.logprob for waiting in out if waiting.logprob is not None)
        return tuple(waiting.token for waiting in out), logprobs

    def _is_out(self, waiting: _WaitingToken) -> bool:
        return waiting.end is not None and waiting.end <= self._num_out
