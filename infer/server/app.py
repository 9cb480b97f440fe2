"""The routes: OpenAI's, those of the tokenizer, and what operators and people look at."""

import time
from typing import Any

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse, Response

from infer.protocol import parse_chat, parse_completion
from infer.server.answer_job import AnswerJob
from infer.server.api_keys import KeyCheck
from infer.server.chat_page import chat_page
from infer.server.http_error import HttpError, install_error_handlers
from infer.server.metrics import CONTENT_TYPE
from infer.server.request_log import RequestLog
from infer.server.text_routes import text_router
from infer.server.workplace import Workplace


def make_app(work: Workplace) -> FastAPI:
    """The server's application. `/` and `/health` need no key."""
    # Its own documentation pages load scripts from elsewhere, and would know nothing of the bodies.
    app = FastAPI(title="llama-jax", docs_url=None, redoc_url=None, openapi_url=None)
    install_error_handlers(app)
    key_check = [Depends(KeyCheck(work.settings.api_keys))]
    app.include_router(_openai_router(work), dependencies=key_check)
    app.include_router(text_router(work), dependencies=key_check)
    page = chat_page()

    @app.get("/")
    async def chat() -> Response:
        return page

    @app.get("/health")
    async def health() -> JSONResponse:
        status = "ok"
        if work.engine.death is not None:
            status = "the engine has stopped"
        elif work.admission.is_draining:
            status = "draining"
        return JSONResponse({"status": status}, 200 if status == "ok" else 503)

    @app.get("/metrics", dependencies=key_check)
    async def metrics() -> Response:
        return Response(work.metrics.text(), media_type=CONTENT_TYPE)

    if work.settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=work.settings.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=["Retry-After"],
        )
    app.add_middleware(RequestLog)
    return app


def _openai_router(work: Workplace) -> APIRouter:
    router = APIRouter(prefix="/v1")
    created = int(time.time())

    def description(name: str) -> dict[str, Any]:
        fields = {"id": name, "object": "model", "created": created, "owned_by": "llama-jax"}
        return {**fields, "max_model_len": work.model.max_length}

    @router.get("/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [description(name) for name in work.model.names]}

    @router.get("/models/{name:path}")
    async def model(name: str) -> dict[str, Any]:
        if name not in work.model.names:
            served = ", ".join(work.model.names)
            message = f"the model {name!r} is not served here; served: {served}"
            raise HttpError(404, message, code="model_not_found")
        return description(name)

    @router.post("/chat/completions")
    async def chat_completions(request: Request) -> Response:
        return AnswerJob(work, parse_chat, request)

    @router.post("/completions")
    async def completions(request: Request) -> Response:
        return AnswerJob(work, parse_completion, request)

    @router.post("/embeddings")
    async def embeddings() -> Response:
        raise HttpError(
            400,
            "embeddings are not served: the model is trained to continue text, and its hidden "
            "states are no sentence embeddings; use a model made for them",
            code="not_served",
        )

    return router
