"""What whole and streamed responses are made of."""

import hashlib
import json
from typing import Any

from infer.protocol.parsed_request import ParsedRequest
from llama_jax.chat import ToolCall

WITHHELD = "The answer was withheld: it was judged unsafe."
"""The `refusal` of a message whose finish reason is `content_filter`."""


def envelope(
    request: ParsedRequest, kind: str, *, response_id: str, created: int
) -> dict[str, Any]:
    """The fields that responses and chunks begin with; `kind` is the value of `object`."""
    return {
        "id": response_id,
        "object": kind,
        "created": created,
        "model": request.model_name,
        "system_fingerprint": None,
    }


def usage(request: ParsedRequest, num_new_tokens: int) -> dict[str, Any]:
    """How many tokens were read and written. A prompt counts once, however many samples it has; of
    the answers count all that `AnswerDelta.num_new_tokens` says, the stopping ids too."""
    num_prompt_tokens = sum(len(answer.prompt) for answer in request.answers)
    return {
        "prompt_tokens": num_prompt_tokens,
        "completion_tokens": num_new_tokens,
        "total_tokens": num_prompt_tokens + num_new_tokens,
    }


def choice_index(request: ParsedRequest, number: int, sample: int) -> int:
    """Which choice of the response sample `sample` of `request.answers[number]` is."""
    return number * request.answers[0].n + sample


def tool_call_objects(
    calls: tuple[ToolCall, ...], *, response_id: str, choice: int
) -> list[dict[str, Any]]:
    """`tool_calls` of a message. Their ids are made of the response's, so that a batch job that was
    interrupted writes the same ones again."""
    objects = []
    for index, call in enumerate(calls):
        name = f"{response_id}/{choice}/{index}".encode()
        function = {
            "name": call.name,
            "arguments": json.dumps(call.arguments, ensure_ascii=False),
        }
        call_id = f"call_{hashlib.sha256(name).hexdigest()[:24]}"
        objects.append({"id": call_id, "type": "function", "function": function})
    return objects
