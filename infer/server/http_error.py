"""A refusal or a failure as an exception, and every exception as an answer to the client."""

import logging
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from infer.protocol import error_object, error_object_of
from llama_jax.errors import InputError

LOG = logging.getLogger(__name__)


class HttpError(Exception):
    """What the client is told instead of an answer.

    Attributes:
      status: HTTP's.
      body: OpenAI's error object.
      headers: more of them.
      outcome: the request's name in the metrics.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        outcome: str = "invalid",
        headers: Mapping[str, str] | None = None,
    ):
        super().__init__(message)
        self.status = status
        self.body: dict[str, Any] = error_object(message, status=status, code=code)
        self.outcome = outcome
        self.headers = dict(headers or {})

    def response(self) -> JSONResponse:
        """The answer to the request."""
        return JSONResponse(self.body, self.status, headers=self.headers)


def as_http_error(error: Exception) -> HttpError:
    """What the client is told of `error`. What is neither a refusal nor the client's mistake is
    ours: its traceback goes to the log, and the client learns no more than that it happened."""
    if isinstance(error, HttpError):
        return error
    if isinstance(error, InputError):
        status, body = error_object_of(error)
        told = HttpError(status, str(error))
        told.body = body
        return told
    LOG.error("a request failed", exc_info=error)
    return HttpError(500, "the server failed at this request; its log says why", outcome="error")


def install_error_handlers(app: FastAPI) -> None:
    """Makes every error of `app` an error object, those of the framework too."""

    async def answer(request: Request, error: Exception) -> JSONResponse:
        return as_http_error(error).response()

    async def answer_framework(request: Request, error: HTTPException) -> JSONResponse:
        place = f"{request.method} {request.url.path}"
        if error.status_code == 404:
            return HttpError(404, f"there is no {place}", code="unknown_url").response()
        return HttpError(
            error.status_code, f"{place}: {error.detail}", headers=error.headers
        ).response()

    app.add_exception_handler(HttpError, answer)
    app.add_exception_handler(InputError, answer)
    app.add_exception_handler(HTTPException, answer_framework)
