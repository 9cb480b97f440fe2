"""uvicorn, with an end that finishes what was begun.

uvicorn's own answer to SIGTERM closes the door at once. Here it stays open, so that a load balancer
sees `/health` turn to 503 and clients are told what happens, until the answers that run are
finished or their time is up.
"""

import asyncio
import logging
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from infer.server.http_error import HttpError
from infer.server.workplace import Workplace
from llama_jax.errors import InputError

LOG = logging.getLogger(__name__)

# How long what is given up may take to say so to its clients.
_FAREWELL_SECONDS = 2
# A signal may come twice for one wish: `timeout` and some init processes send it to the process and
# to its group.
_SECOND_THOUGHT_SECONDS = 1
# Of an idle connection; longer than most proxies keep theirs, so that they close first.
_KEEP_ALIVE_SECONDS = 65


def open_socket(host: str, port: int) -> socket.socket:
    """A socket bound to the address, which does not listen yet. Raises `InputError`: taken, or no
    address of this machine."""
    if not 0 <= port <= 65535:
        raise InputError(f"--port must be from 0 to 65535, not {port}")
    try:
        (family, kind, protocol, _, address), *_ = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        opened = socket.socket(family, kind, protocol)
        try:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            opened.bind(address)
        except BaseException:
            opened.close()
            raise
    except OSError as error:
        reason = error.strerror or error
        raise InputError(
            f"--host {host} --port {port}: {reason}; take another, or port 0 for any free one"
        ) from None
    return opened


def address_of(opened: socket.socket) -> str:
    """`http://...` of a bound socket."""
    host, port = opened.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class _Connection(H11Protocol):
    """Gives each request the way to cut its connection, as `scope["state"]["abort"]`."""

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self.app_state = {**self.app_state, "abort": transport.abort}


class Listener(uvicorn.Server):
    """Serves `app` until a signal or `leave`.

    Attributes:
      signal: the number of a second signal, which ended the server at once; else None.
    """

    def __init__(self, app: FastAPI, work: Workplace, *, on_started: Callable[[], None]):
        super().__init__(
            uvicorn.Config(
                app,
                http=_Connection,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=_KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=_FAREWELL_SECONDS,
            )
        )
        self._work = work
        self._on_started = on_started
        self._leaving: asyncio.Task | None = None
        self._leaving_since = 0.0
        self.signal: int | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_started()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """In the main thread, SIGTERM and SIGINT begin the end; another one makes it short."""
        loop = asyncio.get_running_loop()
        numbers = (signal.SIGTERM, signal.SIGINT)
        before = {number: signal.getsignal(number) for number in numbers}
        try:
            for number in numbers:
                loop.add_signal_handler(number, self._on_signal, number)
        except (ValueError, RuntimeError):  # not in the main thread: whoever made it ends it
            before = {}
        try:
            yield
        finally:
            for number, handler in before.items():
                loop.remove_signal_handler(number)
                signal.signal(number, handler)

    def leave(self) -> None:
        """Refuses what is new, lets what runs finish within the drain timeout, then ends."""
        if self._leaving is None:
            self._leaving_since = time.monotonic()
            self._leaving = asyncio.ensure_future(self._leave())

    def _on_signal(self, number: int) -> None:
        if self._leaving is None:
            self.leave()
        elif time.monotonic() - self._leaving_since > _SECOND_THOUGHT_SECONDS:
            LOG.warning("a second signal: leaving at once")
            self.signal = number
            self._abort_all()
            self.should_exit = self.force_exit = True

    async def _leave(self) -> None:
        admission, engine = self._work.admission, self._work.engine
        admission.is_draining = True
        seconds = self._work.settings.drain_timeout
        if engine.death is None and admission.unfinished:
            LOG.info("draining: %d answers have %g s to finish", admission.unfinished, seconds)
            if not await self._idle_within(seconds):
                LOG.warning("giving up %d answers: the time is over", admission.unfinished)
                message = "the server was shut down before the answer was finished"
                engine.give_up_all(HttpError(503, message, outcome="draining"))
        if not await self._idle_within(_FAREWELL_SECONDS):
            self._abort_all()
        self.should_exit = True

    async def _idle_within(self, seconds: float) -> bool:
        try:
            await asyncio.wait_for(self._work.admission.until_idle(), seconds)
        except TimeoutError:
            return False
        return True

    def _abort_all(self) -> None:
        for connection in list(self.server_state.connections):
            connection.transport.abort()
