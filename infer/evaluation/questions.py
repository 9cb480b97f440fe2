"""The two kinds of questions: one whose choices are compared, one that is answered and marked."""

from dataclasses import dataclass
from typing import Any

from llama_jax.verifiers import Verifier


@dataclass(frozen=True)
class ChoiceQuestion:
    """Right is the choice that the model finds most likely.

    Attributes:
      name: of the question within its task.
      category: for results by category, or None.
      user: what a model tuned for chat is asked.
      lead: how its answer begins, in every choice; may be empty.
      plain: what a base model continues, up to the space before the choice.
      choices: texts, without a space before.
      answer: which of them is right, from 0.
      examples: questions that are shown before it, with their answers.
    """

    name: str
    category: str | None
    user: str
    lead: str
    plain: str
    choices: tuple[str, ...]
    answer: int
    examples: tuple["ChoiceQuestion", ...] = ()

    @property
    def reply(self) -> str:
        """What a model tuned for chat says that answers rightly."""
        return self.said(self.choices[self.answer])

    def said(self, choice: str) -> str:
        """`choice`, after what an answer begins with."""
        return f"{self.lead} {choice}" if self.lead else choice


@dataclass(frozen=True)
class OpenQuestion:
    """Right is what the verifier calls so.

    Attributes:
      name: of the question within its task.
      category: for results by category, or None.
      body: fields of a plain row of a batch job: `messages` or `prompt`, sampling fields.
      verifier: marks the answers.
      plain: what a base model is given in place of `body`; None is the same.
    """

    name: str
    category: str | None
    body: dict[str, Any]
    verifier: Verifier
    plain: dict[str, Any] | None = None


Question = ChoiceQuestion | OpenQuestion


@dataclass(frozen=True)
class Task:
    """Attributes:
    name: as it was asked for.
    questions: of one kind or both.
    """

    name: str
    questions: tuple[Question, ...]
