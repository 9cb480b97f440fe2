"""A server's life: from an engine that is compiled to an exit code."""

import asyncio
import logging
import socket
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from infer.engine.engine import EngineUsage
from infer.guard.judge import Judge
from infer.protocol import ServedModel
from infer.server.admission import Admission
from infer.server.app import make_app
from infer.server.engine_thread import AnsweringLike, EngineThread
from infer.server.guard_filter import ServerGuard
from infer.server.listener import Listener, address_of
from infer.server.metrics import Metrics
from infer.server.settings import ServerSettings
from infer.server.workplace import NUM_TEXT_THREADS, Workplace

SIGNALLED = 128
"""Added to the number of the signal that ended a server at once."""

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class GuardEngine:
    """A guard and what answers for it, compiled; `usage` are its engine's counters."""

    judge: Judge
    answering: AnsweringLike
    usage: Callable[[], EngineUsage]


async def run_server(
    opened: socket.socket,
    *,
    settings: ServerSettings,
    model: ServedModel,
    answering: AnsweringLike,
    usage: Callable[[], EngineUsage],
    guard: GuardEngine | None = None,
    on_started: Callable[[Listener], None],
) -> int:
    """Serves until a signal or the engine's death.

    Args:
      opened: bound, not yet listening; closed at the end.
      answering: its engine is compiled.
      usage: the engine's counters.
      guard: judges prompts and answers, if there is one.
      on_started: called once requests are answered.

    Returns:
      The exit code: 0 after a drain, 1 if the engine died, 128 and the number of a second signal.
    """
    engine = EngineThread(answering, usage, on_death=lambda error: listener.leave())
    metrics = Metrics(lambda: engine.usage)
    text_threads = ThreadPoolExecutor(NUM_TEXT_THREADS, "text")
    engines, server_guard = [engine], None
    if guard is not None:
        engines.append(
            EngineThread(guard.answering, guard.usage, on_death=lambda error: listener.leave())
        )
        server_guard = ServerGuard(guard.judge, engines[-1], metrics, text_threads)
    work = Workplace(
        settings=settings,
        model=model,
        engine=engine,
        admission=Admission(capacity=settings.capacity, rows=settings.rows),
        metrics=metrics,
        text_threads=text_threads,
        guard=server_guard,
    )
    listener = Listener(make_app(work), work, on_started=lambda: on_started(listener))
    try:
        await listener.serve(sockets=[opened])
    finally:
        work.text_threads.shutdown(wait=False, cancel_futures=True)
        if listener.signal is None:
            for thread in engines:
                await thread.stop()
    for thread in engines:
        if thread.death is not None:
            LOG.error("the engine stopped", exc_info=thread.death)
            line = " ".join(f"{type(thread.death).__name__}: {thread.death}".split())
            print(f"error: the engine stopped: {line}", file=sys.stderr)
            return 1
    return 0 if listener.signal is None else SIGNALLED + listener.signal


def run(opened: socket.socket, *, say_serving: Callable[[str], None], **options) -> int:
    """`run_server` on an event loop of its own; `say_serving` is told the address."""
    return asyncio.run(
        run_server(opened, on_started=lambda _: say_serving(address_of(opened)), **options)
    )
