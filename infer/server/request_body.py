"""The body of a request, with a limit that holds whether or not the client told its length."""

from typing import Any

from fastapi import Request

from infer.server.http_error import HttpError
from llama_jax.json_file import parse_json


async def read_body(request: Request, max_bytes: int) -> bytes:
    """The whole body.

    Raises:
      HttpError: 413 if it is longer than `max_bytes`, before more than that is held; 415 for
        another type than JSON. A page of another origin can send `text/plain` unasked, and JSON
        only with leave (CORS), so asking for it keeps such pages out of a server on localhost.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise HttpError(415, "send the header Content-Type: application/json")
    announced = request.headers.get("content-length", "0")
    # Digits, as h11 has checked; perhaps more of them than Python reads.
    if len(announced) > 18 or int(announced) > max_bytes:
        raise _too_large(max_bytes)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_bytes:
            raise _too_large(max_bytes)
    return bytes(body)


def parse_body(body: bytes) -> dict[str, Any]:
    """The JSON object in `body`. Raises `InputError` for anything else."""
    return parse_json(body, "the body of the request")


def _too_large(max_bytes: int) -> HttpError:
    return HttpError(413, f"the body of the request is over {max_bytes} bytes; send less")
