"""What the engine's thread has to say about one request, as it comes, for the task that sends it.

Lives on the event loop, so nothing here needs a lock. What the task has not taken yet is bounded:
a client that reads slower than the model writes holds its task up, and when it is `MAX_BEHIND`
tokens behind, the request is given up rather than a whole answer kept for nobody.
"""

import asyncio
from collections.abc import AsyncIterator, Callable

from infer.answers import AnswerDelta

MAX_BEHIND = 4096
"""Tokens that a client may be behind, over all its samples: minutes of reading."""

NumberedDelta = tuple[int, AnswerDelta]
"""Which of the request's prompts, and what is new about one of its samples."""


class AnswerStream:
    """The deltas of one request; `EngineThread.submit` makes it.

    Args:
      on_close: gives the request up in the engine.
      on_overflow: called once if the reader is too far behind.
    """

    def __init__(self, *, on_close: Callable[[], None], on_overflow: Callable[[], None]):
        self._on_close = on_close
        self._on_overflow = on_overflow
        self._deltas: list[NumberedDelta] = []
        self._num_tokens = 0
        self._failure: Exception | None = None
        self._arrived = asyncio.Event()
        self._is_closed = False
        self.has_overflowed = False

    def put(self, number: int, delta: AnswerDelta) -> None:
        """What is new, from the engine; dropped if nobody wants it any more."""
        if self._is_closed:
            return
        self._deltas.append((number, delta))
        self._num_tokens += len(delta.tokens)
        self._arrived.set()
        if self._num_tokens > MAX_BEHIND:
            self.has_overflowed = True
            self.close()
            self._on_overflow()

    def fail(self, failure: Exception) -> None:
        """There is nothing more to come but this."""
        self._failure = failure
        self._arrived.set()

    async def batches(self) -> AsyncIterator[list[NumberedDelta]]:
        """All that came since the last batch, as soon as there is something. Without an end: the
        reader knows what is the last. Raises what `fail` was given."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            deltas, self._deltas, self._num_tokens = self._deltas, [], 0
            if deltas:
                yield deltas
            if self._failure is not None:
                raise self._failure

    def close(self) -> None:
        """Nobody wants the rest: the engine is told, what still comes is dropped. Does no harm
        after the end, nor twice."""
        if not self._is_closed:
            self._is_closed = True
            self._deltas.clear()
            self._on_close()
