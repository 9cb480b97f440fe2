"""A server started for the benchmark, in a process of its own, and ended with it."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from llama_jax.errors import InputError

_END_SECONDS = 10


@dataclass(frozen=True)
class Server:
    """A server to measure.

    Attributes:
      name: what the report calls it.
      dtype: of its weights; None where nobody said.
      command: starts it on `{port}`, or is empty for one that runs already.
      url: of its API, with `{port}` in it where it is started here.
      model: its name in requests; by default the first that the server lists.
      fields: of every request, besides prompt, limit and temperature.
    """

    name: str
    dtype: str | None
    command: Sequence[str] = ()
    url: str = "http://127.0.0.1:{port}/v1"
    model: str | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)


class ServerProcess:
    """Starts a `Server` and waits until it answers; use it in a `with` statement.

    Attributes:
      url: of its API.
      model: the name of its model.
    """

    def __init__(self, server: Server, *, seconds: float = 300):
        """Args: seconds: that it may take to start.

        Raises:
          InputError: it ended or did not answer in time; with the last line that it wrote.
        """
        self._process: subprocess.Popen | None = None
        self._log = tempfile.TemporaryFile()
        port = _free_port()
        self.url = server.url.format(port=port)
        if server.command:
            self._process = subprocess.Popen(
                [word.format(port=port) for word in server.command],
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )
        try:
            self.model = self._wait(server, seconds)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "ServerProcess":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends it if it was started here: as an operator would, then by force."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
        self._log.close()

    def _wait(self, server: Server, seconds: float) -> str:
        end = time.monotonic() + seconds
        while True:
            try:
                answer = httpx.get(f"{self.url}/models", timeout=5, trust_env=False)
                if server.model is not None:
                    return server.model
                if answer.status_code == 200:
                    return answer.json()["data"][0]["id"]
                reason = f"status {answer.status_code}"
            except httpx.HTTPError as error:
                reason = str(error)
            if self._process is not None and self._process.poll() is not None:
                raise InputError(f"server {server.name} ended: {self._last_line()}")
            if self._process is None or time.monotonic() > end:
                raise InputError(f"server {server.name} at {self.url} does not answer: {reason}")
            time.sleep(0.2)

    def _last_line(self) -> str:
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"exit code {self._process.returncode}"


def our_server(model: str, dtype: str) -> Server:
    """`llama-jax serve`."""
    command = [sys.executable, "-m", "llama_jax", "serve", model, "--port", "{port}"]
    usage = {"stream_options": {"include_usage": True}}
    return Server("llama-jax", dtype, [*command, "--dtype", dtype], fields=usage)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
