"""How a row's end is written: OpenAI's batch objects, plain objects, and failures.

Nothing in them depends on when or how often the job was started: names are hashes of the row's own
name and of the input, and the date is that of the job's first start.
"""

import hashlib
from dataclasses import dataclass
from typing import Any, Protocol

from infer.answers import AnswerDelta
from infer.batch.part_file import FinishedRow, json_text
from infer.protocol import ParsedRequest, RequestError, WholeResponse, error_object_of
from llama_jax.batch_files.batch_row import CHAT_URL, BatchRow
from llama_jax.errors import InputError


class RowResponse(Protocol):
    """What collects the answers of one row: `WholeResponse`, or another with these."""

    @property
    def is_finished(self) -> bool: ...

    @property
    def error(self) -> str | None: ...

    def add(self, number: int, delta: AnswerDelta) -> None: ...

    def body(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class RowOutputs:
    """Writes the rows of one job.

    Attributes:
      input_sha256: tells the names of this job's rows from those of another.
      created: seconds since 1970.
    """

    input_sha256: str
    created: int

    def response(self, row: BatchRow, request: ParsedRequest) -> RowResponse:
        """What the answers of `row` are collected in."""
        response_id = f"{'chatcmpl' if row.url == CHAT_URL else 'cmpl'}-{self._name(row.custom_id)}"
        return WholeResponse(request, response_id=response_id, created=self.created)

    def answered(self, row: int, question: BatchRow, body: dict[str, Any]) -> FinishedRow:
        """Row number `row`, from 0, whose response is `body`."""
        if question.is_plain:
            fields = _plain(question.custom_id, body)
        else:
            fields = self._openai(question.custom_id, 200, body) | {"error": None}
        usage = body["usage"]
        tokens = usage["prompt_tokens"], usage["completion_tokens"]
        samples = len(body["choices"])
        return FinishedRow(row, "output", json_text(fields), *tokens, samples=samples)

    def refused(
        self, row: int, line: int, custom_id: str, error: InputError, *, is_openai: bool
    ) -> FinishedRow:
        """Row number `row`, which cannot be answered as it stands."""
        status, body = error_object_of(error)
        code = error.code if isinstance(error, RequestError) else None
        return self._failed(row, line, custom_id, status, body, code, is_openai=is_openai)

    def broken(self, row: int, question: BatchRow, reason: str) -> FinishedRow:
        """Row number `row`, whose answer failed on the way."""
        body = {"error": {"message": reason, "type": "server_error", "param": None, "code": None}}
        name = "server_error"
        is_openai = not question.is_plain
        return self._failed(
            row, question.line, question.custom_id, 500, body, name, is_openai=is_openai
        )

    def _failed(
        self,
        row: int,
        line: int,
        custom_id: str,
        status: int,
        body: dict[str, Any],
        code: str | None,
        *,
        is_openai: bool,
    ) -> FinishedRow:
        error = {"code": code or "invalid_request", "message": body["error"]["message"]}
        if is_openai:
            fields = self._openai(custom_id, status, body)
        else:
            fields, error = {"custom_id": custom_id}, {"status_code": status, **error}
        return FinishedRow(row, "error", json_text(fields | {"line": line, "error": error}))

    def _openai(self, custom_id: str, status: int, body: dict[str, Any]) -> dict[str, Any]:
        name = self._name(custom_id)
        return {
            "id": f"batch_req_{name}",
            "custom_id": custom_id,
            "response": {"status_code": status, "request_id": f"req_{name}", "body": body},
        }

    def _name(self, custom_id: str) -> str:
        text = f"{self.input_sha256}:{custom_id}"
        return hashlib.sha256(text.encode()).hexdigest()[:32]


def _plain(custom_id: str, body: dict[str, Any]) -> dict[str, Any]:
    """`text`, `finish_reason` and what else was asked for; of several samples in `choices`."""
    choices = []
    for choice in body["choices"]:
        message = choice.get("message")
        fields = {"text": choice["text"] if message is None else message.get("content")}
        rest = (choice if message is None else choice | message).items()
        known = ("index", "text", "message", "content", "role")
        fields |= {name: value for name, value in rest if name not in known and value is not None}
        choices.append(fields)
    usage = {name: body["usage"][name] for name in ("prompt_tokens", "completion_tokens")}
    answer = choices[0] if len(choices) == 1 else {"choices": choices}
    return {"custom_id": custom_id, **answer, "usage": usage}
