"""Questions, answers and scores of a job, as files."""

import json
from pathlib import Path
from typing import Any

from llama_jax.batch_files.answer_row import AnsweredSample


def write(path: Path, rows: list[Any]) -> Path:
    """A row a line; a text as it is."""
    lines = (row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def question(custom_id: str, text: str = "", **fields: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": text or f"What is {custom_id}?"}]
    return {"custom_id": custom_id, "messages": messages, **fields}


def answer(custom_id: str, *samples: str | tuple[str, str]) -> dict[str, Any]:
    """A plain row. A sample is its text, or its text and how it ended."""
    pairs = [(one, "stop") if isinstance(one, str) else one for one in samples]
    choices = [{"text": text, "finish_reason": reason} for text, reason in pairs]
    usage = {"prompt_tokens": 3, "completion_tokens": 5}
    return {"custom_id": custom_id, "usage": usage, **(
        choices[0] if len(choices) == 1 else {"choices": choices}
    )}  # fmt: skip


def openai_answer(custom_id: str, *messages: dict[str, Any], model: str = "m") -> dict[str, Any]:
    """A row of OpenAI's batch output, with what a provider adds."""
    choices = [
        {"index": index, "message": {"role": "assistant", "content": None, "refusal": None} | one,
         "logprobs": None, "finish_reason": "tool_calls" if "tool_calls" in one else "stop"}
        for index, one in enumerate(messages)
    ]  # fmt: skip
    body = {"id": "c", "object": "chat.completion", "model": model, "choices": choices,
            "usage": {"prompt_tokens": 1}, "service_tier": "default"}  # fmt: skip
    response = {"status_code": 200, "request_id": "r", "body": body}
    return {"id": "b", "custom_id": custom_id, "response": response, "error": None}


def scores(custom_id: str, *numbers: float | None, **fields: Any) -> list[dict[str, Any]]:
    """A row a number; None for a sample that was not scored."""
    return [
        {"custom_id": custom_id, "sample": sample, "score": number, **fields}
        for sample, number in enumerate(numbers)
        if number is not None
    ]


def sha256_of(text: str) -> str:
    return AnsweredSample(0, text, "stop").sha256


def manifest(input_sha256: str, **fields: Any) -> dict[str, Any]:
    """As `llama-jax batch` leaves it beside its output."""
    return {
        "input_sha256": input_sha256, "input_bytes": 1, "rows": 1, "model": "models/tiny",
        "fingerprint": "f" * 64, "options": {"seed": 5, "format": "auto"}, "version": "0",
        "created": 1, "finished": {"rows": 1}, "format": 1,
    } | fields  # fmt: skip
