"""From a row of a job to what a server behind a URL is sent, and back."""

from dataclasses import dataclass
from typing import Any, Literal

from infer.batch.row_request import row_seed
from infer.protocol.answer_fields import MAX_SAMPLES
from infer.protocol.request_error import RequestError
from llama_jax.batch_files.answer_row import parse_answer_row
from llama_jax.batch_files.batch_row import CHAT_URL, BatchRow
from llama_jax.errors import InputError

# Of a choice of a plain row: what a reader of answers knows.
_MESSAGE_FIELDS = ("role", "content", "tool_calls", "refusal")
_CHOICE_FIELDS = ("index", "text", "finish_reason", "stop_reason", "logprobs")


@dataclass(frozen=True)
class RemoteRequests:
    """Makes requests of the rows of one job.

    Attributes:
      model: what the server calls the model.
      seed: of the job, from which each row that has none gets its own, as in `llama-jax batch`;
        None to send none, for servers that take none.
      max_new_tokens: of plain rows that do not say.
      format: whether the `prompt` of a plain row is a user's message or text to be continued.
    """

    model: str
    seed: int | None
    max_new_tokens: int
    format: Literal["chat", "raw"]

    def __call__(self, row: BatchRow) -> tuple[str, dict[str, Any]]:
        """The path below the URL of the API, and the body. Raises `RequestError` for what has no
        meaning here; what the fields mean is the server's to say."""
        body = {name: value for name, value in row.body.items() if name != "metadata"}
        if body.get("stream"):
            raise RequestError("stream: a row is answered whole; leave it out", param="stream")
        if body.setdefault("model", self.model) != self.model:
            raise RequestError(
                f"model: {str(body['model'])[:200]!r} is not asked here; this job asks "
                f"{self.model}",
                param="model",
                code="model_not_found",
                status=404,
            )
        samples = body.get("n", 1)
        if type(samples) is not int or not 1 <= samples <= MAX_SAMPLES:
            raise RequestError(f"n: must be a whole number from 1 to {MAX_SAMPLES}", param="n")
        is_chat = row.url == CHAT_URL
        if row.is_plain:
            if "max_tokens" not in body and "max_completion_tokens" not in body:
                body["max_tokens"] = self.max_new_tokens
            if not is_chat and self.format == "chat":
                prompt = body.pop("prompt")
                if not isinstance(prompt, str):
                    raise RequestError("prompt: must be text to be a message", param="prompt")
                body = {"messages": [{"role": "user", "content": prompt}], **body}
                is_chat = True
        if self.seed is not None:
            body.setdefault("seed", row_seed(self.seed, row.custom_id))
        return "/chat/completions" if is_chat else "/completions", body


def checked_response(row: BatchRow, body: dict[str, Any]) -> dict[str, Any]:
    """The body of a server's response, whole enough to be written for `row`: every sample is there,
    with its text and how it ended, and `usage` counts tokens (0 where the server does not).

    Raises `InputError` that says what is missing.
    """
    envelope = {"status_code": 200, "body": body}
    answer = parse_answer_row({"custom_id": row.custom_id, "response": envelope}, row.line)
    prompt = row.body.get("prompt")
    is_several = isinstance(prompt, list) and prompt and isinstance(prompt[0], str | list)
    prompts = len(prompt) if is_several else 1
    wanted = row.body.get("n", 1) * prompts
    if len(answer.samples) != wanted:
        raise InputError(f"n: {wanted} answers were asked for and {len(answer.samples)} came")
    usage = body.get("usage") if isinstance(body.get("usage"), dict) else {}
    counts = {
        name: usage[name] if type(usage.get(name)) is int and usage[name] >= 0 else 0
        for name in ("prompt_tokens", "completion_tokens")
    }
    body = {**body, "usage": {**usage, **counts}}
    if row.is_plain:
        body["choices"] = [_known(choice) for choice in body["choices"]]
    return body


def _known(choice: dict[str, Any]) -> dict[str, Any]:
    known = {name: choice[name] for name in _CHOICE_FIELDS if name in choice}
    if "message" in choice:
        message = choice["message"]
        known["message"] = {name: message[name] for name in _MESSAGE_FIELDS if name in message}
    return known
