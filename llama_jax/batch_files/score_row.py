"""One line of a file of scores: how good one sample of one answer is.

    {"custom_id": "a", "sample": 0, "score": 1.5, "model": "reward-8b", "answer_sha256": "..."}

`llama-jax score` writes them (a reward model) and `llama-jax verify` (a verifier), in the order of
the answers. A higher score is better; nothing else is known of the scale, unless a verifier scored:
then 1 is right. An answer that could not be scored has an "error" in the place of the score.
`model` says who scored, `model_sha256` by which weights; `answer_sha256` is of the text that was
scored: where it is there, it is compared, so scores of another job cannot slip in under the same
names.
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llama_jax.batch_files.json_lines import json_lines, refuse_unknown
from llama_jax.errors import InputError

_FIELDS = ("custom_id", "sample", "score", "model", "model_sha256", "answer_sha256", "error")


@dataclass(frozen=True)
class ScoreRow:
    """Attributes:
    custom_id: of the question.
    sample: which of its answers, from 0.
    score: finite; higher is better. None where `error` says why there is none.
    model: who scored.
    model_sha256: of the scorer's weights.
    answer_sha256: of the text that was scored.
    line: in the file, from 1.
    """

    custom_id: str
    sample: int
    score: float | None
    model: str | None = None
    model_sha256: str | None = None
    answer_sha256: str | None = None
    error: str | None = None
    line: int = 0

    def fields(self) -> dict[str, Any]:
        """The object of the line; what is not known is left out."""
        fields = {name: getattr(self, name) for name in _FIELDS}
        return {name: value for name, value in fields.items() if value is not None}


def read_score_groups(path: Path) -> Iterator[list[ScoreRow]]:
    """The scores of one question after another, as they stand in the file. Raises `InputError` that
    names the line and the field."""
    rows = (_parsed(line.fields, line.number, path) for line in json_lines(path))
    for _, group in itertools.groupby(rows, lambda row: row.custom_id):
        yield list(group)


def _parsed(fields: dict[str, Any], line: int, path: Path) -> ScoreRow:
    def refuse(reason: str) -> None:
        raise InputError(f"{path}: line {line}: {reason}")

    refuse_unknown(fields, _FIELDS, refuse)
    custom_id, sample, score = (fields.get(name) for name in _FIELDS[:3])
    if not isinstance(custom_id, str) or not custom_id:
        refuse(f"custom_id: must be a text that is not empty, not {custom_id!r}")
    if type(sample) is not int or sample < 0:
        refuse(f"sample: must be a whole number from 0, not {sample!r}")
    if "error" in fields:
        if "score" in fields:
            refuse("error: stands beside a score; keep one of them")
        if not isinstance(fields["error"], str):
            refuse(f"error: must be text, not {fields['error']!r}")
        score = None
    elif type(score) not in (int, float) or not math.isfinite(score):
        refuse(f"score: must be a finite number, not {score!r}")
    for name in _FIELDS[3:]:
        if not isinstance(fields.get(name), str | None):
            refuse(f"{name}: must be text, not {fields[name]!r}")
    return ScoreRow(**{**fields, "score": None if score is None else float(score)}, line=line)
