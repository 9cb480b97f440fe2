"""Questions of the package reasoning-gym, made and marked by its own generators.

A question follows from the task, its config, the seed and its index: question i of seed s is drawn
with s + i. So seeds that lie nearer than the size overlap; `configs/reasoning_gym.py` keeps splits
apart.
"""

import difflib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from llama_jax.errors import InputError
from llama_jax.verifiers.executed_answers import REFUSED, may_be_scored
from llama_jax.verifiers.final_answer import final_answer

INSTALL = "pip install '.[evaluate]'"
INSTRUCTION = "Reply with the final answer only."
"""After every question, so that a right answer is as short as the package's own."""
RIGHT = 1.0
"""The score of a right answer; less is partly right at most."""


class Question(NamedTuple):
    """A question and the answer that its generator gives."""

    text: str
    answer: str


@dataclass(frozen=True)
class ReasoningGymTask:
    """One task with one seed.

    Attributes:
      name: as the package registers it, such as `chain_sum`.
      seed: of question 0.
      size: questions.
      config: fields of the task's own config; its defaults hold where it says nothing.
    """

    name: str
    seed: int
    size: int
    config: Mapping[str, Any] = field(default_factory=dict)

    def question(self, index: int) -> Question:
        """Question `index`, from 0."""
        entry = self._entry(index)
        return Question(entry["question"], entry["answer"])

    def prompt(self, index: int) -> str:
        """Question `index` as a model is asked it."""
        return f"{self.question(index).text}\n{INSTRUCTION}"

    def score(self, index: int, text: str) -> float:
        """How right `text` answers question `index`: 0 to 1, which is right. What the task's scorer
        cannot read, as `prime_factorization` no word, is wrong, and so is what it would run
        (`executed_answers.py`)."""
        entry, answer = self._entry(index), final_answer(text)
        if not may_be_scored(self.name, answer):
            return 0.0
        try:
            return float(self._dataset.score_answer(answer, entry))
        except Exception:  # whatever a scorer's own parsing raises
            return 0.0

    def metadata(self, index: int) -> dict[str, Any]:
        """What a row says of question `index`, so that `verifier_of` finds it again."""
        return {
            "category": self.name,
            "verifier": "reasoning-gym",
            "task": self.name,
            "seed": self.seed,
            "size": self.size,
            "index": index,
            "config": dict(self.config),
        }

    def _entry(self, index: int) -> dict[str, Any]:
        if not 0 <= index < self.size:
            raise InputError(f"reasoning-gym {self.name}: no question {index} of {self.size}")
        return self._dataset[index]

    @cached_property
    def _dataset(self) -> Any:
        if importlib.util.find_spec("reasoning_gym") is None:
            raise InputError(f"the package reasoning-gym is not installed; {INSTALL}")
        import reasoning_gym
        from reasoning_gym.factory import DATASETS

        if self.name not in DATASETS:
            near = difflib.get_close_matches(self.name, DATASETS, n=3, cutoff=0.5)
            hint = f"did you mean {' or '.join(near)}?" if near else "see reasoning_gym.factory"
            raise InputError(f"reasoning-gym has no task {self.name!r}; {hint}")
        if self.name in REFUSED:
            raise InputError(
                f"reasoning-gym {self.name}: its scorer runs answers as Python, and a model's "
                "could do anything; take another task"
            )
        try:
            return reasoning_gym.create_dataset(
                self.name, **{**self.config, "seed": self.seed, "size": self.size}
            )
        except (AssertionError, TypeError, ValueError) as error:  # its ways to refuse a config
            raise InputError(f"reasoning-gym {self.name}: config: {error}") from error
