"""OpenAI's JSON in and out, with vLLM's usual extra fields: what the server and batch jobs speak.

    request = parse_chat(body, model, default_seed=0)       or parse_completion, parse_plain_row
    ids = [answering.add(answer) for answer in request.answers]
    response = WholeResponse(request, response_id=..., created=...)
    for delta in answering.step(): response.add(ids.index(delta.answer_id), delta)
    response.body()

Strict: a field that is unknown or cannot be honoured is a `RequestError` that names it.
"""

from infer.protocol.chat_request import parse_chat
from infer.protocol.completion_request import parse_completion
from infer.protocol.error_object import error_object, error_object_of
from infer.protocol.parsed_request import ParsedRequest
from infer.protocol.plain_row import parse_plain_row
from infer.protocol.request_error import RequestError
from infer.protocol.response_id import new_response_id
from infer.protocol.served_model import ServedModel
from infer.protocol.streamed_response import StreamedResponse
from infer.protocol.whole_response import WholeResponse

__all__ = [
    "ParsedRequest",
    "RequestError",
    "ServedModel",
    "StreamedResponse",
    "WholeResponse",
    "error_object",
    "error_object_of",
    "new_response_id",
    "parse_chat",
    "parse_completion",
    "parse_plain_row",
]
