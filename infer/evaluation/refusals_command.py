"""`llama-jax refusals`: how often answers decline, where they should and where they should not."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from infer.evaluation.refusal import NUM_CHARACTERS, PHRASES, declines
from infer.evaluation.result_lines import summary_lines
from infer.evaluation.results import QuestionResult, summary
from infer.evaluation.verdict_rows import Verdicts
from llama_jax.batch_files.batch_row import CHAT_URL, BatchRow
from llama_jax.batch_files.job_origin import read_origin
from llama_jax.batch_files.joined_rows import JoinedRow, joined_rows
from llama_jax.batch_files.output_paths import check_outputs
from llama_jax.chat import messages_from_dicts
from llama_jax.errors import InputError
from llama_jax.whole_file import write_lines

_METHOD = f"{len(PHRASES)} phrases in the first {NUM_CHARACTERS} characters, not a judge"


def refusals(
    answers: tyro.conf.Positional[Path],
    *,
    questions: Path,
    output: Path | None = None,
    question_verdicts: Path | None = None,
    answer_verdicts: Path | None = None,
    guard_rows: Path | None = None,
    overwrite: bool = False,
) -> None:
    """Counts refusals among the answers of a batch job: of harmful questions, which should be
    declined, and of harmless ones, which should not.

    A question says which it is in its metadata, {"harmful": true}, or the guard does, with
    --question-verdicts. Refusals are told by plain phrases, since a guard does not judge them; with
    --answer-verdicts it is counted too how many answers the guard calls unsafe. Both need two
    steps: --guard-rows writes the answers as rows for the guard, its verdicts go in here.

    Example: llama-jax refusals answers.jsonl --questions questions.jsonl --guard-rows judge.jsonl

    Args:
      answers: JSONL, as `llama-jax batch` wrote it.
      questions: the rows that were answered.
      output: where to write the rates as JSON, with their standard errors and by category.
      question_verdicts: what `llama-jax guard` says of QUESTIONS.
      answer_verdicts: what `llama-jax guard` says of the rows that --guard-rows wrote.
      guard_rows: where to write a row an answer, for `llama-jax guard`.
      overwrite: replace an output that is there, once the new one is whole.
    """
    inputs = [answers, questions, question_verdicts, answer_verdicts]
    check_outputs([output, guard_rows], inputs, overwrite=overwrite)
    if (origin := read_origin(answers)) is not None:
        origin.check_input(questions, answers)
    marks = _Marks(
        questions,
        Verdicts(question_verdicts) if question_verdicts else None,
        Verdicts(answer_verdicts) if answer_verdicts else None,
    )
    groups: dict[str, list[QuestionResult]] = {"harmful": [], "harmless": []}
    for row in joined_rows(questions, answers):
        is_harmful, result = marks.of(row)
        groups["harmful" if is_harmful else "harmless"].append(result)
    if guard_rows is not None:
        write_lines(guard_rows, _guard_rows(questions, answers))
    results = {"method": _METHOD, **{name: summary(some) for name, some in groups.items()}}
    if output is not None:
        write_lines(output, [json.dumps(results, indent=2, ensure_ascii=False)])
    print("\n".join(_lines(results)))


@dataclass(frozen=True)
class _Marks:
    """Marks the answers to one question after another."""

    questions: Path
    question_verdicts: Verdicts | None
    answer_verdicts: Verdicts | None

    def of(self, row: JoinedRow) -> tuple[bool, QuestionResult]:
        """Whether the question is harmful, and shares of its answers."""
        question = row.question
        is_harmful = self._is_harmful(question)
        marks: dict[str, float] = {}
        if row.answer is not None:
            samples = row.answer.samples
            marks["refused"] = sum(declines(one.text) for one in samples) / len(samples)
            if self.answer_verdicts is not None:
                unsafe = [
                    not one.is_empty
                    and self.answer_verdicts.is_unsafe(f"{question.custom_id}/{one.index}")
                    for one in samples
                ]
                marks["unsafe"] = sum(unsafe) / len(samples)
        return is_harmful, QuestionResult(question.custom_id, question.category, marks, {})

    def _is_harmful(self, question: BatchRow) -> bool:
        if self.question_verdicts is not None:
            return self.question_verdicts.is_unsafe(question.custom_id)
        is_harmful = question.metadata.get("harmful")
        if not isinstance(is_harmful, bool):
            raise InputError(
                f"{self.questions}: line {question.line}: metadata.harmful: must be true or false, "
                "or give --question-verdicts"
            )
        return is_harmful


def _guard_rows(questions: Path, answers: Path) -> Iterator[str]:
    """A row for `llama-jax guard` of each answer, named as `_Marks` looks for it. One that says
    nothing harms nobody, and the guard judges none."""
    for row in joined_rows(questions, answers):
        if row.answer is None:
            continue
        body = row.question.body
        asked = {"messages" if row.question.url == CHAT_URL else "prompt"}
        for sample in row.answer.samples:
            if sample.is_empty:
                continue
            try:
                messages_from_dicts([sample.message])
            except InputError as error:
                place = f"{answers}: line {row.answer.line}: sample {sample.index}"
                raise InputError(f"{place}: {error}") from None
            fields: dict[str, Any] = {"custom_id": f"{row.question.custom_id}/{sample.index}"}
            fields |= {name: body[name] for name in asked} | {"answer": sample.message}
            yield json.dumps(fields, ensure_ascii=False)


def _lines(results: dict[str, Any]) -> list[str]:
    lines = [f"refusals are told by {results['method']}"]
    for name, right in (("harmful", "should be refused"), ("harmless", "should be answered")):
        note = f", which {right}"
        lines += summary_lines(name, results[name], by_category="refused", note=note)
    return lines
