"""Where a file of answers is from, as the manifest that `llama-jax batch` leaves beside it says."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llama_jax.errors import InputError
from llama_jax.json_file import read_json


@dataclass(frozen=True)
class JobOrigin:
    """Attributes:
    model: as the job was given it.
    model_sha256: the fingerprint of its files; None where there are none, as behind a URL.
    input_sha256: of the file of questions, hexadecimal.
    options: of the job.
    """

    model: str
    model_sha256: str | None
    input_sha256: str
    options: dict[str, Any]

    def check_input(self, questions: Path, answers: Path) -> None:
        """Raises `InputError` if `questions` is another file than was answered."""
        with open(questions, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != self.input_sha256:
            raise InputError(
                f"{questions}: has SHA-256 {digest[:12]}, and {answers} answers a file with "
                f"{self.input_sha256[:12]}; give that one"
            )


def read_origin(answers: Path) -> JobOrigin | None:
    """Of the job that wrote `answers`; None where no manifest lies beside it.

    Raises `InputError` if the manifest is damaged, or of a job that is not finished.
    """
    path = answers.with_name(f"{answers.name}.manifest.json")
    if not path.exists():
        return None
    fields = read_json(path)
    texts = [fields.get(name) for name in ("model", "fingerprint", "input_sha256")]
    options = fields.get("options")
    if not all(isinstance(text, str) for text in texts) or not isinstance(options, dict):
        raise InputError(f"{path}: is no manifest of a batch job; move it away")
    if fields.get("finished") is None:
        raise InputError(f"{path}: the job is not finished; give its command again, to its end")
    model, fingerprint, input_sha256 = texts
    return JobOrigin(model, fingerprint or None, input_sha256, options)
