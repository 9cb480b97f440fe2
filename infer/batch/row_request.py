"""From a row to what the engine is asked: the interface it is for, its seed, its defaults."""

import hashlib
from collections.abc import Callable

from infer.protocol import (
    ParsedRequest,
    ServedModel,
    parse_chat,
    parse_completion,
    parse_plain_row,
)
from infer.protocol.completion_request import DEFAULT_MAX_TOKENS
from llama_jax.batch_files.batch_row import CHAT_URL, BatchRow, RowError
from llama_jax.errors import InputError


def row_seed(job_seed: int, custom_id: str) -> int:
    """The seed of a row that names none, below 2^32: a hash of the job's and the row's name, so
    that it depends on neither the order of rows nor on what else is in the file."""
    digest = hashlib.sha256(f"{job_seed}:{custom_id}".encode()).digest()
    return int.from_bytes(digest[:4], "little")


def default_limit(max_new_tokens: int, context_length: int) -> Callable[[BatchRow], int]:
    """The most new tokens of a row that does not say, as `scan_rows` wants to know it."""

    def limit(row: BatchRow) -> int:
        if row.is_plain:
            return max_new_tokens
        return context_length if row.url == CHAT_URL else DEFAULT_MAX_TOKENS

    return limit


class RowRequests:
    """Parses the rows of one job.

    Args:
      seed: of the job.
      max_new_tokens: of plain rows that do not say.
      prompts_are_messages: whether the `prompt` of a plain row is what a user says to a chat model,
        and not text to be continued.
    """

    def __init__(
        self, model: ServedModel, *, seed: int, max_new_tokens: int, prompts_are_messages: bool
    ):
        self._model = model
        self._seed = seed
        self._max_new_tokens = max_new_tokens
        self._prompts_are_messages = prompts_are_messages

    def __call__(self, row: BatchRow) -> ParsedRequest:
        """What `row` asks for.

        Raises `RequestError` for what cannot be asked. Any other exception is a mistake of ours,
        and becomes a `RowError` that says so: it must not keep the other rows from their answers.
        """
        try:
            return self._parse(row)
        except InputError:
            raise
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            raise RowError(f"internal error while parsing: {reason}", row.custom_id) from error

    def _parse(self, row: BatchRow) -> ParsedRequest:
        defaults = {"default_seed": row_seed(self._seed, row.custom_id)}
        if row.is_plain:
            defaults["default_max_tokens"] = self._max_new_tokens
            return parse_plain_row(self._plain_body(row), self._model, **defaults)
        parse = parse_chat if row.url == CHAT_URL else parse_completion
        request = parse(row.body, self._model, **defaults)
        if request.stream:
            raise InputError("stream: a row of a batch has no one to stream to; take it out")
        return request

    def _plain_body(self, row: BatchRow) -> dict:
        prompt = row.body.get("prompt")
        if not (self._prompts_are_messages and isinstance(prompt, str)):
            return row.body
        rest = {name: value for name, value in row.body.items() if name != "prompt"}
        return {"messages": [{"role": "user", "content": prompt}], **rest}
