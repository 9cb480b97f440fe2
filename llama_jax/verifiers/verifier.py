"""From the metadata of a question to the function that marks its answers."""

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, ClassVar, Protocol

from llama_jax.errors import InputError
from llama_jax.verifiers.final_answer import final_answer
from llama_jax.verifiers.final_number import final_number
from llama_jax.verifiers.ifeval_question import IfevalQuestion, ifeval_question
from llama_jax.verifiers.reasoning_gym_task import RIGHT, ReasoningGymTask

# Metadata of a question that other commands read: `select`, and `refusals`.
_OF_OTHERS = ("category", "harmful")


class Verifier(Protocol):
    """Marks the answers to one question.

    Attributes:
      name: of whoever marks, for a file of scores.
    """

    name: str

    def __call__(self, text: str) -> float:
        """How right an answer is: 0 to 1, which is right."""
        ...


@dataclass(frozen=True)
class ExactAnswer:
    """Right is what equals `answer`, but for spaces around and case."""

    answer: str
    name = "exact"

    def __call__(self, text: str) -> float:
        return RIGHT * (final_answer(text).casefold() == self.answer.strip().casefold())


@dataclass(frozen=True)
class NumberAnswer:
    """Right is an answer whose last number is `answer`."""

    answer: Decimal
    name: ClassVar[str] = "number"

    def __call__(self, text: str) -> float:
        return RIGHT * (final_number(final_answer(text)) == self.answer)


@dataclass(frozen=True)
class ReasoningGymQuestion:
    """Marked by the task's own scorer."""

    task: ReasoningGymTask
    index: int
    prefix: ClassVar[str] = "reasoning-gym "

    @property
    def name(self) -> str:
        return f"{self.prefix}{self.task.name}"

    def __call__(self, text: str) -> float:
        return self.task.score(self.index, text)


def verifier_of(metadata: Mapping[str, Any]) -> Verifier:
    """Of a question with this metadata. Raises `InputError` that names the field."""
    fields = {name: value for name, value in metadata.items() if name not in _OF_OTHERS}
    kind = fields.pop("verifier", None)
    if kind == "exact":
        _check_fields(fields, {"answer": str})
        if not fields["answer"].strip():
            raise InputError("metadata.answer: is empty; give the right answer")
        return ExactAnswer(fields["answer"])
    if kind == "number":
        _check_fields(fields, {"answer": str})
        answer = final_number(fields["answer"])
        if answer is None:
            raise InputError(f"metadata.answer: {fields['answer']!r} is no number")
        return NumberAnswer(answer)
    if kind == "reasoning-gym":
        _check_fields(fields, {"task": str, "seed": int, "size": int, "index": int, "config": dict})
        config = json.dumps(fields["config"], sort_keys=True)
        task = _task(fields["task"], fields["seed"], fields["size"], config)
        return ReasoningGymQuestion(task, fields["index"])
    if kind == "ifeval":
        _check_fields(fields, {"prompt": str, "instruction_id_list": list, "kwargs": list})
        return ifeval_question(fields)
    if kind is None:
        raise InputError("metadata.verifier: missing; it says how answers are verified")
    raise InputError(
        f"metadata.verifier: {kind!r} is unknown; use exact, number, reasoning-gym or ifeval"
    )


def is_verifier(scorer: str | None) -> bool:
    """Whether this is the `name` of a verifier."""
    names = (ExactAnswer.name, NumberAnswer.name, IfevalQuestion.name)
    return scorer is not None and (
        scorer in names or scorer.startswith(ReasoningGymQuestion.prefix)
    )


@functools.lru_cache(maxsize=64)
def _task(name: str, seed: int, size: int, config: str) -> ReasoningGymTask:
    """One object for all questions of a task: making its generator may take a moment."""
    return ReasoningGymTask(name, seed, size, json.loads(config))


def _check_fields(fields: Mapping[str, Any], kinds: Mapping[str, type]) -> None:
    for name in fields:
        if name not in kinds:
            known = ", ".join(("verifier", *kinds, *_OF_OTHERS))
            raise InputError(f"metadata.{name}: unknown field; known: {known}")
    for name, kind in kinds.items():
        if type(fields.get(name)) is not kind:
            raise InputError(f"metadata.{name}: must be {kind.__name__}, not {fields.get(name)!r}")
