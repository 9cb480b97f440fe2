"""From answers to marks a question, and from those to accuracies with their standard errors."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from infer.evaluation.choice_rows import ChoiceScore, choice_score
from infer.evaluation.questions import ChoiceQuestion, OpenQuestion, Question
from llama_jax.batch_files.answer_row import AnswerRow
from llama_jax.verifiers.reasoning_gym_task import RIGHT


@dataclass(frozen=True)
class QuestionResult:
    """Attributes:
    name, category: of the question.
    marks: metric -> 0 to 1; empty if the question could not be asked.
    details: what was answered.
    """

    name: str
    category: str | None
    marks: dict[str, float]
    details: dict[str, Any]


def question_result(
    question: Question, rows: list[dict[str, Any]], answers: Mapping[str, AnswerRow]
) -> QuestionResult:
    """Of one question.

    Args:
      rows: of the batch job, with their `custom_id`.
      answers: those there are; a row that failed has none.
    """
    there = [answers.get(row["custom_id"]) for row in rows]
    if None in there:
        return QuestionResult(question.name, question.category, {}, {"failed": True})
    if isinstance(question, ChoiceQuestion):
        scores = [choice_score(row, answer) for row, answer in zip(rows, there, strict=True)]
        marks, details = _of_choices(question, scores)
    else:
        marks, details = _of_answers(question, there[0])
    return QuestionResult(question.name, question.category, marks, details)


def _of_choices(
    question: ChoiceQuestion, scores: list[ChoiceScore]
) -> tuple[dict[str, float], dict[str, Any]]:
    """Of equally likely choices the first is taken."""
    ways = {
        "accuracy": [score.logprob for score in scores],
        "accuracy_per_byte": [score.per_byte for score in scores],
        "accuracy_per_token": [score.per_token for score in scores],
    }
    marks = {
        name: float(values.index(max(values)) == question.answer) for name, values in ways.items()
    }
    return marks, {"answer": question.answer, "logprobs": ways["accuracy"]}


def _of_answers(
    question: OpenQuestion, answer: AnswerRow
) -> tuple[dict[str, float], dict[str, Any]]:
    """The mean over the samples: what one answer is worth on average."""
    scores = [question.verifier(sample.text) for sample in answer.samples]
    cut_off = [sample.finish_reason == "length" for sample in answer.samples]
    count = len(scores)
    marks = {
        "accuracy": sum(score == RIGHT for score in scores) / count,
        "score": sum(scores) / count,
        "cut_off": sum(cut_off) / count,
    }
    return marks, {"answers": [sample.text for sample in answer.samples], "scores": scores}


def summary(results: Iterable[QuestionResult]) -> dict[str, Any]:
    """Of a task: `questions` that were answered, `failed`, and each metric's mean and standard
    error, for those questions that have it; the same of each category there is."""
    results = list(results)
    whole = _means(results)
    categories = sorted({result.category for result in results if result.category is not None})
    if categories:
        whole["categories"] = {
            category: _means([result for result in results if result.category == category])
            for category in categories
        }
    return whole


def _means(results: list[QuestionResult]) -> dict[str, Any]:
    answered = [result for result in results if result.marks]
    names = dict.fromkeys(name for result in answered for name in result.marks)
    metrics = {}
    for name in names:
        values = [result.marks[name] for result in answered if name in result.marks]
        mean, error = mean_and_error(values)
        metrics[name] = {"mean": mean, "standard_error": error}
    failed = len(results) - len(answered)
    return {"questions": len(answered), "failed": failed, "metrics": metrics}


def mean_and_error(values: list[float]) -> tuple[float, float | None]:
    """The mean, and the standard error of it: the deviation of the sample (n - 1) over the root of
    n. None of one value, whose spread nobody knows."""
    count = len(values)
    mean = sum(values) / count
    if count < 2:
        return mean, None
    variance = sum((value - mean) ** 2 for value in values) / (count - 1)
    return mean, math.sqrt(variance / count)
