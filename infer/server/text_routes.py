"""Text to ids and back, as vLLM has it: what a prompt costs, and what the model sees of it.

POST /tokenize    {"prompt": "Hi"} or {"messages": [...], "tools": [...]}
                  -> {"tokens": [...], "count": 1, "max_model_len": 131072}
POST /detokenize  {"tokens": [...]}  -> {"prompt": "Hi"}
"""

import asyncio
from typing import Any

from fastapi import APIRouter, Request

from infer.protocol import RequestError, ServedModel
from infer.server.http_error import HttpError
from infer.server.request_body import parse_body, read_body
from infer.server.workplace import Workplace
from llama_jax.chat import messages_from_dicts
from llama_jax.chat.messages import is_json_value


def text_router(work: Workplace) -> APIRouter:
    """The two routes."""
    router = APIRouter()

    async def run(request: Request, answer) -> dict[str, Any]:
        body = await read_body(request, work.settings.max_body_bytes)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            work.text_threads, lambda: answer(parse_body(body), work.model)
        )

    @router.post("/tokenize")
    async def tokenize_route(request: Request) -> dict[str, Any]:
        return await run(request, tokenize)

    @router.post("/detokenize")
    async def detokenize_route(request: Request) -> dict[str, Any]:
        return await run(request, detokenize)

    return router


def tokenize(body: dict[str, Any], model: ServedModel) -> dict[str, Any]:
    """The ids of a text to be continued (with BOS where the model wants one, unless
    `add_special_tokens` is false), or of a dialog with the header of the answer.

    Raises:
      RequestError: naming the field.
    """
    if ("prompt" in body) == ("messages" in body):
        raise RequestError("prompt: give either prompt or messages", param="prompt")
    if "prompt" in body:
        _check(body, model, {"prompt", "add_special_tokens"})
        text, adds_bos = body["prompt"], body.get("add_special_tokens", True)
        if not isinstance(text, str) or not is_json_value(text):
            raise RequestError("prompt: must be a text", param="prompt")
        if not isinstance(adds_bos, bool):
            name = "add_special_tokens"
            raise RequestError(f"{name}: must be true or false", param=name)
        start = [model.tokenizer.bos_id] if model.begins_with_bos and adds_bos else []
        tokens = start + model.tokenizer.encode(text)
    else:
        _check(body, model, {"messages", "tools"})
        if model.chat_format is None:
            raise RequestError("messages: a base model has no chat format", param="messages")
        messages = messages_from_dicts(body["messages"])
        tools = body.get("tools")
        if not isinstance(tools, list | None):
            raise RequestError("tools: must be a list", param="tools")
        tokens = model.chat_format.encode_prompt(messages, tools=tools)
    return {"tokens": tokens, "count": len(tokens), "max_model_len": model.max_length}


def detokenize(body: dict[str, Any], model: ServedModel) -> dict[str, Any]:
    """The text of `tokens`, special ones included. Raises `RequestError` naming the field."""
    _check(body, model, {"tokens"})
    tokens, size = body.get("tokens"), model.tokenizer.vocab_size
    if not isinstance(tokens, list) or not all(
        type(token) is int and 0 <= token < size for token in tokens
    ):
        raise RequestError(f"tokens: must be a list of ids from 0 to {size - 1}", param="tokens")
    return {"prompt": model.tokenizer.decode(tokens)}


def _check(body: dict[str, Any], model: ServedModel, fields: set[str]) -> None:
    """That `body` has no other fields than these, and means this model if it names one."""
    for name in body:
        if name not in fields | {"model"}:
            known = ", ".join(sorted(fields | {"model"}))
            raise RequestError(f"{name}: unknown field; known here: {known}", param=name)
    if body.get("model", model.names[0]) not in model.names:
        raise HttpError(
            404,
            f"the model {body['model']!r} is not served here; served: {', '.join(model.names)}",
            code="model_not_found",
        )
