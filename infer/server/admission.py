"""How many answers may be unfinished at once; one more is refused at the door.

A queue without a bound only turns overload into answers that nobody waits for any more. A request
counts as one answer while it is read and parsed, and then as many as it asks for. Lives on the
event loop.
"""

import asyncio
import math

from infer.server.http_error import HttpError

# The weight of the newest request in the running mean of their durations: about the last ten count.
_WEIGHT = 0.1
_MAX_RETRY_AFTER = 60


class Admission:
    """The count of unfinished answers, and whether the door is open."""

    def __init__(self, *, capacity: int, rows: int):
        self._capacity = capacity
        self._rows = rows
        self._mean_seconds = 0.0
        self.unfinished = 0
        self.is_draining = False
        self._idle = asyncio.Event()
        self._idle.set()

    def enter(self) -> None:
        """Counts one answer. Raises `HttpError`: 503 while draining, 429 when full."""
        if self.is_draining:
            raise HttpError(
                503,
                "the server is shutting down",
                code="shutting_down",
                outcome="draining",
                headers={"Retry-After": "1"},
            )
        self._grow(1)

    def grow(self, num_answers: int) -> None:
        """Counts the further answers of a request that asks for `num_answers`.

        Raises `HttpError`: 400 for more than can ever be held, 429 when full."""
        if num_answers > self._capacity:
            raise HttpError(
                400,
                f"{num_answers} answers at once are over what this server holds, {self._capacity}; "
                "ask for fewer",
                code="too_many_answers",
            )
        self._grow(num_answers - 1, held=1)

    def leave(self, num_answers: int, seconds: float) -> None:
        """The end of a request that counted for `num_answers`, after so long."""
        self._mean_seconds += _WEIGHT * (seconds - self._mean_seconds)
        self.unfinished -= num_answers
        if not self.unfinished:
            self._idle.set()

    async def until_idle(self) -> None:
        """Returns when no answer is unfinished."""
        await self._idle.wait()

    def _grow(self, num_answers: int, *, held: int = 0) -> None:
        """Counts further answers of a request that counts for `held` already."""
        if self.unfinished + num_answers > self._capacity:
            # One place comes free in so long on average, if all rows are busy.
            seconds = math.ceil(self._mean_seconds / self._rows)
            raise HttpError(
                429,
                f"the queue is full: this request needs {num_answers + held} of "
                f"{self._capacity} places, and {self._capacity - self.unfinished + held} are free",
                code="queue_full",
                outcome="refused",
                headers={"Retry-After": str(min(max(1, seconds), _MAX_RETRY_AFTER))},
            )
        self.unfinished += num_answers
        if self.unfinished:
            self._idle.clear()
