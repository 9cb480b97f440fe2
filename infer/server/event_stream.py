"""Server-sent events: `data: {...}` and an empty line for each chunk, `data: [DONE]` at the end.

Reference: WHATWG HTML, section 9.2; OpenAI's API reference, "Streaming".
"""

import json
from collections.abc import Sequence
from typing import Any

from starlette.types import Send

_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # nginx would collect the events
]


class EventStream:
    """A response of events. Nothing is sent before there is an event, so that what fails before
    still has a status of its own."""

    def __init__(self, send: Send):
        self._send = send
        self.has_started = False

    async def send(self, chunks: Sequence[dict[str, Any]]) -> None:
        """Sends chunks, together; waits while the client is behind."""
        if chunks:
            await self._send_body("".join(f"data: {_json(chunk)}\n\n" for chunk in chunks))

    async def end(self) -> None:
        """The end of a whole answer."""
        await self._send_body("data: [DONE]\n\n", is_last=True)

    async def fail(self, body: dict[str, Any]) -> None:
        """The end of an answer that is not whole: an error object, and no [DONE]."""
        await self._send_body(f"data: {_json(body)}\n\n", is_last=True)

    async def _send_body(self, text: str, *, is_last: bool = False) -> None:
        if not self.has_started:
            self.has_started = True
            await self._send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        message = {"type": "http.response.body", "body": text.encode(), "more_body": not is_last}
        await self._send(message)


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
