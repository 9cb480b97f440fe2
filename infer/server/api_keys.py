"""Keys that open the server, as `Authorization: Bearer KEY`.

Keys are compared by their digests and all of them always: how long a refusal takes says nothing of
how near a guess was.
"""

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from pathlib import Path

from fastapi import Request

from infer.server.http_error import HttpError
from llama_jax.errors import InputError

ENVIRONMENT_VARIABLE = "LLAMA_JAX_API_KEY"


def read_api_keys(path: Path | None, environment: Mapping[str, str]) -> tuple[str, ...]:
    """The keys of a file, one a line (a line that begins with # is a comment), and the one of
    `LLAMA_JAX_API_KEY`. None of either: no keys, and the server is open.

    Raises:
      InputError: a key that no header can carry, or a source that was given and holds no key:
        the server would be open where someone meant to close it.
    """
    keys = []
    if path is not None:
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError:
            raise InputError(f"{path}: not UTF-8 text; write one key a line") from None
        lines = [line.strip() for line in lines]
        found = [line for line in lines if line and not line.startswith("#")]
        if not found:
            raise InputError(f"{path}: holds no key; write one a line")
        keys += [_checked(key, str(path)) for key in found]
    if ENVIRONMENT_VARIABLE in environment:
        keys.append(_checked(environment[ENVIRONMENT_VARIABLE], ENVIRONMENT_VARIABLE))
    return tuple(keys)


def _checked(key: str, place: str) -> str:
    if not key or not all(33 <= ord(character) <= 126 for character in key):
        raise InputError(f"{place}: a key must be visible ASCII characters without a space")
    return key


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
