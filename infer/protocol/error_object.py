"""OpenAI's error objects: `{"error": {"message", "type", "param", "code"}}`, with HTTP's status."""

from typing import Any

from infer.protocol.request_error import RequestError
from llama_jax.errors import InputError


def error_object(
    message: str, *, status: int, param: str | None = None, code: str | None = None
) -> dict[str, Any]:
    """The body that goes with `status`; its type follows from that, as OpenAI's does."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    if status == 429:
        kind = "rate_limit_error"
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def error_object_of(error: InputError) -> tuple[int, dict[str, Any]]:
    """HTTP's status and the body for what was wrong with a request."""
    if isinstance(error, RequestError):
        body = error_object(str(error), status=error.status, param=error.param, code=error.code)
        return error.status, body
    return 400, error_object(str(error), status=400)
