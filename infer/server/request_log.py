"""One line a request: what was asked, how it ended, how long it took. Never what it said.

POST /v1/chat/completions 200 ok, 37 + 120 tokens, 1.52 s
"""

import logging
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOG = logging.getLogger(__name__)


class RequestLog:
    """Middleware around the whole application."""

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = time.monotonic()
        status = "no answer"

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
            await send(message)

        try:
            await self._app(scope, receive, watch)
        finally:
            # As it came over the wire: percent signs and no control characters.
            path = scope["raw_path"].decode("ascii", "replace")[:200]
            ending = scope.get("state", {}).get("ending")
            notes = [f"{scope['method']} {path} {status}", *([ending] if ending else [])]
            LOG.info("%s, %.2f s", ", ".join(notes), time.monotonic() - start)
