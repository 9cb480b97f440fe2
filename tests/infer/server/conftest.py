"""Servers on free ports: over an engine that follows a script, where the point is HTTP."""

import asyncio
import http.client
import json
import threading
import time

import pytest

from infer.answers import AnswerDelta
from infer.engine.engine import EngineUsage
from infer.loaded_model import load_model
from infer.protocol import ServedModel
from infer.server.listener import address_of, open_socket
from infer.server.run_server import run_server
from infer.server.settings import ServerSettings
from llama_jax.errors import InputError


class ScriptedAnswering:
    """Writes `width` letters x in a step for every answer, as one new token. An answer of 13 tokens
    fails at its end.

    Attributes:
      limit: of prompt and answer, in tokens.
      may_step: cleared, it holds every step up.
      fault: raised by the next step, if set.
    """

    def __init__(self):
        self.may_step = threading.Event()
        self.may_step.set()
        self.fault = None
        self.width = 1
        self.seconds_a_step = 0.0
        self.left = {}  # answer id -> sample -> steps to go
        self.size = {}
        self.num_added = self.num_steps = 0
        self.limit = 250

    @property
    def is_idle(self):
        return not self.left

    def add(self, request):
        if len(request.prompt) + request.max_new_tokens > self.limit:
            raise InputError("over the scripted context; ask for less")
        self.num_added += 1
        self.left[self.num_added] = dict.fromkeys(range(request.n), request.max_new_tokens)
        self.size[self.num_added] = request.max_new_tokens
        return self.num_added

    def cancel(self, answer_id):
        self.left.pop(answer_id, None)

    def usage(self):
        rows = sum(map(len, self.left.values()))
        return EngineUsage(0, rows, rows, 0, 100, 0, 0, 0, self.num_steps, self.num_steps)

    def step(self):
        self.may_step.wait()
        if self.fault is not None:
            raise self.fault
        time.sleep(self.seconds_a_step)
        self.num_steps += 1
        deltas = []
        for answer_id, samples in list(self.left.items()):
            for index in list(samples):
                samples[index] -= 1
                num_new = self.size[answer_id] - samples[index]
                finish = "error" if self.size[answer_id] == 13 else "length"
                deltas.append(
                    AnswerDelta(
                        answer_id,
                        index,
                        text="x" * self.width,
                        tokens=(ord("x"),),
                        num_new_tokens=num_new,
                        finish_reason=None if samples[index] else finish,
                        error=None if samples[index] or finish == "length" else "scripted failure",
                    )
                )
                if not samples[index]:
                    del samples[index]
            if not samples:
                del self.left[answer_id]
        return deltas


class RunningServer:
    """A server in a thread of its own, which is its main thread but for the signals."""

    def __init__(self, model, answering, usage, guard=None, **changes):
        settings = {
            "model_names": model.names,
            "rows": 4,
            "max_queue": 8,
            "request_timeout": 60.0,
            "drain_timeout": 30.0,
            "max_body_bytes": 1_000_000,
        }
        self.answering = answering
        self.code = None
        opened = open_socket("127.0.0.1", 0)
        self.address = address_of(opened)
        self.port = opened.getsockname()[1]
        started = threading.Event()

        def on_started(listener):
            self.listener, self._loop = listener, asyncio.get_running_loop()
            started.set()

        def run():
            self.code = asyncio.run(
                run_server(
                    opened,
                    settings=ServerSettings(**{**settings, **changes}),
                    model=model,
                    answering=answering,
                    usage=usage,
                    guard=guard,
                    on_started=on_started,
                )
            )

        self._thread = threading.Thread(target=run)
        self._thread.start()
        assert started.wait(30)

    def leave(self):
        """What SIGTERM does."""
        self._loop.call_soon_threadsafe(self.listener.leave)

    def wait(self, timeout=30):
        self._thread.join(timeout)
        assert not self._thread.is_alive()
        return self.code

    def request(self, method, path, body=None, headers=None):
        """Status, headers and the JSON of a response."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            if isinstance(body, dict):
                body = json.dumps(body).encode()
                headers = {"Content-Type": "application/json", **(headers or {})}
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            content = response.read()
            is_json = response.headers["content-type"] == "application/json"
            return response.status, response.headers, json.loads(content) if is_json else content
        finally:
            connection.close()


@pytest.fixture(scope="session")
def running_server():
    """The class, for tests that bring an engine of their own."""
    return RunningServer


@pytest.fixture(scope="session")
def wait_until():
    """A function that returns when its condition holds, and fails if that takes too long."""

    def wait(condition, timeout=20):
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, "it never came to be"
            time.sleep(0.005)

    return wait


@pytest.fixture(scope="session")
def served_model(chat_checkpoint):
    return ServedModel.of(load_model(chat_checkpoint), names=("tiny", "other/name"))


@pytest.fixture
def serve_script(served_model):
    """Starts servers over a `ScriptedAnswering`; ends them after the test."""
    servers = []

    def start(**changes):
        answering = ScriptedAnswering()
        servers.append(RunningServer(served_model, answering, answering.usage, **changes))
        return servers[-1]

    yield start
    for server in servers:
        server.answering.may_step.set()
        if server.code is None:
            server.leave()
            server.wait()


@pytest.fixture(scope="module")
def shared_server(served_model):
    """One for tests that leave nothing behind."""
    answering = ScriptedAnswering()
    server = RunningServer(served_model, answering, answering.usage)
    yield server
    server.leave()
    server.wait()
