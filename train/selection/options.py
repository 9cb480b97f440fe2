"""How answers are chosen, checked."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from llama_jax.errors import InputError


@dataclass(frozen=True)
class SelectionOptions:
    """What the command line says besides its files; see `select_command.py`.

    Attributes:
      minimum_score: of an answer that is to be learnt from; None for any but those that a verifier
        has not marked as right.
      minimum_gap: between the scores of a pair; None where no pairs are made.
      rejected: the worst answer, or one drawn among all that are worse by the gap.
      duplicates: how alike two texts are the same: letter for letter, or but for case and spaces.
      quotas: category -> rows of it at most; `*` stands for all that are not named.
      seed: of what is drawn: rejected answers, and the rows that a quota leaves.
    """

    minimum_score: float | None = None
    minimum_gap: float | None = None
    rejected: Literal["worst", "drawn"] = "worst"
    duplicates: Literal["exact", "normalised"] = "normalised"
    quotas: Mapping[str, int] = field(default_factory=dict)
    seed: int = 0

    def __post_init__(self):
        if self.minimum_score is not None and not math.isfinite(self.minimum_score):
            raise InputError(f"--minimum-score must be a finite number, not {self.minimum_score}")
        gap = self.minimum_gap
        if gap is not None and not (math.isfinite(gap) and gap > 0):
            raise InputError(f"--minimum-gap must be above 0, not {gap}")
        if not 0 <= self.seed < 2**32:
            raise InputError(f"--seed must be from 0 to 2^32 - 1, not {self.seed}")

    def quota(self, category: str | None) -> int | None:
        """Rows of `category` at most; None for all."""
        return self.quotas.get(category or "", self.quotas.get("*"))

    def draw(self, purpose: str, custom_id: str) -> int:
        """A number below 2^64 that depends on the seed and the row alone, so neither on the order
        of the rows nor on what else is in the file."""
        text = f"{self.seed}:{purpose}:{custom_id}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


def parse_quotas(given: Sequence[str]) -> dict[str, int]:
    """`CATEGORY=ROWS` of each. Raises `InputError` for anything else, and for a category that is
    given twice."""
    quotas: dict[str, int] = {}
    for text in given:
        category, equals, rows = text.rpartition("=")
        if not equals or not category or not rows.isascii() or not rows.isdecimal():
            raise InputError(f"--quota {text}: must be CATEGORY=ROWS, as in code=1000 or '*=500'")
        if category in quotas:
            raise InputError(f"--quota {category}: is given twice; give it once")
        quotas[category] = int(rows)
    return quotas
