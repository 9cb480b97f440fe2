"""The engine in a thread of its own, and the event loop's way to it.

The thread owns the engine: nobody else touches it. Requests and cancellations reach it as commands,
carried out between two steps; what a step brought goes back in one call, which wakes the loop once
for all rows. The thread is never more than `MAX_AHEAD` such calls ahead of the loop, so that the
tasks that send get their turn, and what waits for them stays bounded.
"""

import asyncio
import functools
import queue
import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from infer.answers import AnswerDelta, AnswerRequest
from infer.engine.engine import EngineUsage
from infer.server.answer_stream import AnswerStream
from infer.server.http_error import HttpError

MAX_AHEAD = 2
_News = tuple[AnswerStream, int, AnswerDelta]


class AnsweringLike(Protocol):
    """What the thread runs; `infer.answers.Answering` is one."""

    @property
    def is_idle(self) -> bool: ...

    def add(self, request: AnswerRequest) -> int: ...

    def cancel(self, answer_id: int) -> None: ...

    def step(self) -> list[AnswerDelta]: ...


class EngineThread:
    """Runs `answering` until `stop`. Everything public is called on the event loop.

    Args:
      usage: reads the engine's counters; called in the thread.
      on_death: called once, on the loop, if the engine raises what no request is to blame for.

    Attributes:
      usage: the counters after the last step.
      death: what the engine died of, or None.
    """

    def __init__(
        self,
        answering: AnsweringLike,
        usage: Callable[[], EngineUsage],
        *,
        on_death: Callable[[BaseException], None],
    ):
        self._answering = answering
        self._read_usage = usage
        self._on_death = on_death
        self._loop = asyncio.get_running_loop()
        self._commands: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._ahead = threading.Semaphore(MAX_AHEAD)
        # Answer id -> its stream and which of the stream's prompts it is; the thread's own.
        self._readers: dict[int, tuple[AnswerStream, int]] = {}
        # Stream -> whether the engine has taken its requests; the loop's own.
        self._open: dict[AnswerStream, asyncio.Future] = {}
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self.usage = usage()
        self.death: BaseException | None = None
        self._thread.start()

    async def submit(
        self, requests: Sequence[AnswerRequest], *, on_overflow: Callable[[], None]
    ) -> AnswerStream:
        """Queues all of `requests` or none.

        Args:
          on_overflow: called if the stream's reader falls too far behind.

        Raises:
          InputError: one of them can never be answered.
          HttpError: 500, the engine is dead.
        """
        stream = AnswerStream(on_close=lambda: self._close(stream), on_overflow=on_overflow)
        accepted = self._loop.create_future()
        self._open[stream] = accepted
        try:
            if self.death is not None:
                raise dead_engine()
            self._commands.put(functools.partial(self._add, stream, requests, accepted))
            await accepted
        except BaseException:
            stream.close()
            raise
        return stream

    def give_up_all(self, failure: HttpError) -> None:
        """Ends every request with `failure`."""
        for stream, accepted in self._open.items():
            self._settle(accepted, failure)
            stream.fail(failure)

    async def stop(self) -> None:
        """Ends the thread after its step; what is unfinished is never finished."""
        self._commands.put(None)
        for _ in range(MAX_AHEAD):
            self._ahead.release()
        await self._loop.run_in_executor(None, self._thread.join)

    # On the loop:

    def _close(self, stream: AnswerStream) -> None:
        self._open.pop(stream)
        self._commands.put(functools.partial(self._cancel, stream))

    def _deliver(self, news: list[_News], usage: EngineUsage) -> None:
        self.usage = usage
        for stream, number, delta in news:
            stream.put(number, delta)
        self._ahead.release()

    def _settle(self, accepted: asyncio.Future, error: Exception | None) -> None:
        if accepted.done():  # its request was given up
            return
        if error is None:
            accepted.set_result(None)
        else:
            accepted.set_exception(error)

    def _die(self, error: BaseException) -> None:
        self.death = error
        self.give_up_all(dead_engine())
        self._on_death(error)

    # In the thread:

    def _run(self) -> None:
        try:
            while self._carry_out_commands():
                deltas = [] if self._answering.is_idle else self._answering.step()
                news = [(*self._readers[delta.answer_id], delta) for delta in deltas]
                self._ahead.acquire()
                self._loop.call_soon_threadsafe(self._deliver, news, self._read_usage())
        except BaseException as error:  # whatever it is, nobody else would notice
            self._loop.call_soon_threadsafe(self._die, error)

    def _carry_out_commands(self) -> bool:
        """All there are, and at least one while there is nothing to step. False: to stop."""
        waits = self._answering.is_idle
        while True:
            try:
                command = self._commands.get(block=waits)
            except queue.Empty:
                return True
            if command is None:
                return False
            command()
            waits = False

    def _add(
        self, stream: AnswerStream, requests: Sequence[AnswerRequest], accepted: asyncio.Future
    ) -> None:
        error = None
        try:
            for number, request in enumerate(requests):
                self._readers[self._answering.add(request)] = stream, number
        except Exception as raised:  # of this request alone; the others go on
            self._cancel(stream)
            error = raised
        self._loop.call_soon_threadsafe(self._settle, accepted, error)

    def _cancel(self, stream: AnswerStream) -> None:
        ids = [id for id, (reader, _) in self._readers.items() if reader is stream]
        for answer_id in ids:
            self._answering.cancel(answer_id)
            del self._readers[answer_id]


def dead_engine() -> HttpError:
    """What requests are told once the engine is dead."""
    return HttpError(
        500, "the engine has stopped; the server's log says why", code="dead", outcome="error"
    )
