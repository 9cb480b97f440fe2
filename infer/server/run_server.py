"""A server's life: from an engine that is compiled to an exit code."""

import asyncio
import logging
import socket
import sys
from collections.abc import Callable

from infer.engine.engine import EngineUsage
from infer.protocol import ServedModel
from infer.server.admission import Admission
from infer.server.app import make_app
from infer.server.engine_thread import AnsweringLike, EngineThread
from infer.server.listener import Listener, address_of
from infer.server.metrics import Metrics
from infer.server.settings import ServerSettings
from infer.server.workplace import Workplace

SIGNALLED = 128
"""Added to the number of the signal that ended a server at once."""

LOG = logging.getLogger(__name__)


async def run_server(
    opened: socket.socket,
    *,
    settings: ServerSettings,
    model: ServedModel,
    answering: AnsweringLike,
    usage: Callable[[], EngineUsage],
    on_started: Callable[[Listener], None],
) -> int:
    """Serves until a signal or the engine's death.

    Args:
      opened: bound, not yet listening; closed at the end.
      answering: its engine is compiled.
      usage: the engine's counters.
      on_started: called once requests are answered.

    Returns:
      The exit code: 0 after a drain, 1 if the engine died, 128 and the number of a second signal.
    """
    engine = EngineThread(answering, usage, on_death=lambda error: listener.leave())
    work = Workplace(
        settings=settings,
        model=model,
        engine=engine,
        admission=Admission(capacity=settings.capacity, rows=settings.rows),
        metrics=Metrics(lambda: engine.usage),
    )
    listener = Listener(make_app(work), work, on_started=lambda: on_started(listener))
    try:
        await listener.serve(sockets=[opened])
    finally:
        work.text_threads.shutdown(wait=False, cancel_futures=True)
        if listener.signal is None:
            await engine.stop()
    if engine.death is not None:
        LOG.error("the engine stopped", exc_info=engine.death)
        line = " ".join(f"{type(engine.death).__name__}: {engine.death}".split())
        print(f"error: the engine stopped: {line}", file=sys.stderr)
        return 1
    return 0 if listener.signal is None else SIGNALLED + listener.signal


def run(opened: socket.socket, *, say_serving: Callable[[str], None], **options) -> int:
    """`run_server` on an event loop of its own; `say_serving` is told the address."""
    return asyncio.run(
        run_server(opened, on_started=lambda _: say_serving(address_of(opened)), **options)
    )
