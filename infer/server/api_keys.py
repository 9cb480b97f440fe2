"""Keys that open the server, as `Authorization: Bearer KEY`.

Keys are compared by their digests and all of them always: how long a refusal takes says nothing of
how near a guess was.
"""

import hashlib
import hmac
from collections.abc import Sequence

from fastapi import Request

from infer.server.http_error import HttpError


class KeyCheck:
    """A dependency of routes: refuses a request without one of `keys`; without keys, none."""

    def __init__(self, keys: Sequence[str]):
        self._digests = [hashlib.sha256(key.encode()).digest() for key in keys]

    async def __call__(self, request: Request) -> None:
        if not self._digests:
            return
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        digest = hashlib.sha256(given.strip().encode()).digest()
        matches = [hmac.compare_digest(digest, known) for known in self._digests]
        if scheme.lower() != "bearer" or not any(matches):
            message = "give a valid API key as the header Authorization: Bearer KEY"
            raise HttpError(
                401,
                message,
                code="invalid_api_key",
                outcome="unauthorized",
                headers={"WWW-Authenticate": "Bearer"},
            )
