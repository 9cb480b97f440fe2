"""Where a row is from: who answered, how, under which name in which file, and who scored it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llama_jax.batch_files.job_origin import JobOrigin
from llama_jax.batch_files.joined_rows import JoinedRow
from llama_jax.errors import InputError
from train.selection.candidates import Candidate

# Of a question: what is no way of answering it.
_NOT_SAMPLING = ("messages", "prompt", "tools", "metadata", "model")


@dataclass(frozen=True)
class Provenance:
    """What is known of a whole file of answers.

    Attributes:
      answers: the file.
      origin: of the job that wrote it; None where no manifest lies beside it.
      model: who answered, where neither the manifest nor the row says.
      licence: of the answers.
    """

    answers: Path
    origin: JobOrigin | None
    model: str | None
    licence: str

    def of(self, row: JoinedRow, **scored: Candidate) -> dict[str, Any]:
        """Of a row that is made of the answers `scored`, each by the part it has.

        The seed is the job's, from which each row and sample draws its own (`row_seed` in
        `infer/batch`), or the row's where `sampling` has one.
        """
        origin = self.origin
        model = self.model or (origin.model if origin else None) or row.answer.model
        if model is None:
            raise InputError(
                f"{self.answers}: line {row.answer.line}: does not say who answered; say it with "
                "--model"
            )
        score = next(iter(scored.values())).score
        fields = {
            "model": model,
            "model_sha256": origin.model_sha256 if origin else None,
            "url": origin.options.get("url") if origin else None,
            "seed": origin.options.get("seed") if origin else None,
            "sampling": {
                name: value for name, value in row.question.body.items()
                if name not in _NOT_SAMPLING and value is not None
            },
            "score_model": score.model,
            "score_model_sha256": score.model_sha256,
            "licence": self.licence,
            "answers": self.answers.name,
            "custom_id": row.question.custom_id,
            "category": row.question.category,
        }  # fmt: skip
        samples = {
            name: {"sample": one.sample.index, "score": one.score.score}
            for name, one in scored.items()
        }
        known = {name: value for name, value in fields.items() if value is not None}
        return known | (samples.pop("answer", None) or samples)
