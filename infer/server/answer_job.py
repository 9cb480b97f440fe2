"""One request for answers, from the first byte of its body to the last of its response.

Everything that can end it early meets here: the client goes or is too slow, the time is up, the
engine refuses the request or dies, one of its samples fails, the server is told to stop.
"""

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncGenerator, Callable
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse, Response
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from infer.protocol import (
    ParsedRequest,
    StreamedResponse,
    WholeResponse,
    new_response_id,
)
from infer.server.answer_stream import AnswerStream, NumberedDelta
from infer.server.disconnection import ClientGone, while_connected
from infer.server.event_stream import EventStream
from infer.server.guard_filter import GuardFilter
from infer.server.http_error import HttpError, as_http_error
from infer.server.request_body import parse_body, read_body
from infer.server.tally import Tally
from infer.server.workplace import Workplace

Parse = Callable[..., ParsedRequest]
"""`parse_chat` or `parse_completion`."""
Batches = AsyncGenerator[list[NumberedDelta], None]

# A client that does not even take the error gets no more of our time.
_ERROR_SECONDS = 5


class AnswerJob(Response):
    """The response to one request, which is worked out while it is sent."""

    def __init__(self, work: Workplace, parse: Parse, request: Request):
        super().__init__()
        self._work = work
        self._parse = parse
        self._request = request
        self._start = time.monotonic()
        self._tally = Tally(work.metrics, self._start)
        self._num_held = 0  # answers that admission counts for us
        self._has_body = False
        self._stream: AnswerStream | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._events = EventStream(send)
        outcome = "cancelled"  # by the end of the server, which is no exception to be told
        try:
            await self._answer_in_time(scope, receive, send)
            outcome = "ok"
        except ClientGone:
            too_slow = self._stream is not None and self._stream.has_overflowed
            outcome = "client_too_slow" if too_slow else "client_gone"
        except Exception as error:
            told = as_http_error(error)
            outcome = told.outcome
            await self._tell(told, scope, receive, send)
        finally:
            self._close(outcome)

    async def _answer_in_time(self, scope: Scope, receive: Receive, send: Send) -> None:
        settings = self._work.settings
        self._work.admission.enter()
        self._num_held = 1
        deadline = asyncio.timeout(settings.request_timeout)
        try:
            async with deadline:
                try:
                    body = await read_body(self._request, settings.max_body_bytes)
                except ClientDisconnect:
                    raise ClientGone from None
                self._has_body = True
                response = await while_connected(receive, self._answer(body))
                if response is not None:
                    await response(scope, receive, send)
        except TimeoutError:
            if not deadline.expired():
                raise
            seconds = f"{settings.request_timeout:g} s"
            if not self._has_body:
                message = f"the body of the request did not come within {seconds}"
                raise HttpError(408, message, outcome="timeout") from None
            raise HttpError(
                504,
                f"the answer was not finished within {seconds}, waiting included; ask for less or "
                "raise --request-timeout",
                code="timeout",
                outcome="timeout",
                headers={"x-should-retry": "false"},  # the openai package would, at full length
            ) from None

    async def _answer(self, body: bytes) -> JSONResponse | None:
        """The whole response, or None after sending a stream of events."""
        work = self._work
        loop = asyncio.get_running_loop()
        parsed = await loop.run_in_executor(work.text_threads, self._parsed, body)
        num_answers = sum(answer.n for answer in parsed.answers)
        work.admission.grow(num_answers)
        self._num_held = num_answers
        self._tally.num_prompt_tokens = sum(len(answer.prompt) for answer in parsed.answers)
        guard_filter = None
        if work.guard is not None:
            guard_filter = GuardFilter(work.guard, parsed, work.model)
            await guard_filter.check_prompts()
        abort = self._request.scope["state"]["abort"]
        self._stream = await work.engine.submit(parsed.answers, on_overflow=abort)
        batches = self._stream.batches()
        if guard_filter is not None:
            batches = guard_filter.batches(self._stream)
        names = {"response_id": new_response_id(parsed.kind), "created": int(time.time())}
        async with contextlib.aclosing(batches):
            if parsed.stream:
                await self._send_events(batches, StreamedResponse(parsed, **names))
                return None
            return await self._collect(batches, WholeResponse(parsed, **names))

    def _parsed(self, body: bytes) -> ParsedRequest:
        return self._parse(parse_body(body), self._work.model, default_seed=secrets.randbits(32))

    async def _collect(self, batches: Batches, whole: WholeResponse) -> JSONResponse:
        async for batch in batches:
            for number, delta in batch:
                self._tally.add(number, delta)
                whole.add(number, delta)
            if whole.error is not None:
                raise HttpError(500, whole.error, outcome="error")
            if whole.is_finished:
                return JSONResponse(whole.body())

    async def _send_events(self, batches: Batches, streamed: StreamedResponse) -> None:
        async for batch in batches:
            chunks: list[dict[str, Any]] = []
            for number, delta in batch:
                self._tally.add(number, delta)
                if delta.error is not None:
                    await self._events.send(chunks)
                    raise HttpError(500, delta.error, outcome="error")
                chunks += streamed.chunks(number, delta)
            if streamed.is_finished:
                await self._events.send(chunks + streamed.last_chunks())
                await self._events.end()
                return
            await self._events.send(chunks)

    async def _tell(self, told: HttpError, scope: Scope, receive: Receive, send: Send) -> None:
        """Tells the client of an error, in the stream if there is one already."""
        try:
            async with asyncio.timeout(_ERROR_SECONDS):
                if self._events.has_started:
                    await self._events.fail(told.body)
                else:
                    await told.response()(scope, receive, send)
        except TimeoutError:
            scope["state"]["abort"]()

    def _close(self, outcome: str) -> None:
        """Gives everything back, counts and logs."""
        if self._stream is not None:
            self._stream.close()
        seconds = time.monotonic() - self._start
        if self._num_held:
            self._work.admission.leave(self._num_held, seconds)
        self._work.metrics.requests.labels(outcome).inc()
        self._work.metrics.request_time.observe(seconds)
        counts = f"{self._tally.num_prompt_tokens} + {self._tally.num_new_tokens} tokens"
        self._request.scope["state"]["ending"] = f"{outcome}, {counts}"
