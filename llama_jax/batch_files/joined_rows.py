"""Questions, answers and scores of one job, side by side.

A batch job writes its answers in the order of the questions, without those that failed, and scores
come in the order of the answers. So one row of each is held, whatever the size of the job, and what
does not belong together is found at the first row that differs.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from llama_jax.batch_files.answer_row import AnsweredSample, AnswerRow, read_answers
from llama_jax.batch_files.batch_row import BatchRow, RowError, parse_batch_row
from llama_jax.batch_files.json_lines import text_lines
from llama_jax.batch_files.score_row import ScoreRow, read_score_groups
from llama_jax.errors import InputError


@dataclass(frozen=True)
class JoinedRow:
    """One question with its answers.

    Attributes:
      question: as it was asked.
      answer: to it; None if it has failed.
      scores: one a sample; None of a sample that was not scored, which only one that is empty or
        not whole may be. Empty where no scores were asked for.
    """

    question: BatchRow
    answer: AnswerRow | None
    scores: tuple[ScoreRow | None, ...] = ()


def joined_rows(questions: Path, answers: Path, scores: Path | None = None) -> Iterator[JoinedRow]:
    """All questions that can be read, in their order. Raises `InputError` that names the file and
    the row at which they do not belong together."""
    answered = read_answers(answers)
    scored = iter(()) if scores is None else read_score_groups(scores)
    answer, group = next(answered, None), next(scored, None)
    for line, text, _ in text_lines(questions):
        try:
            question = parse_batch_row(text, line)
        except RowError:
            continue  # nobody could answer it
        if answer is None or answer.custom_id != question.custom_id:
            yield JoinedRow(question, None)
            continue
        found: tuple[ScoreRow | None, ...] = ()
        if scores is not None:
            is_its_own = group is not None and group[0].custom_id == answer.custom_id
            if not is_its_own and not any(map(_needs_score, answer.samples)):
                found = (None,) * len(answer.samples)
            else:
                found = _scores_of(answer, group, answers, scores)
                group = next(scored, None)
        yield JoinedRow(question, answer, found)
        answer = next(answered, None)
    if answer is not None:
        raise InputError(
            f"{answers}: line {answer.line}: custom_id {answer.custom_id!r} is not in {questions}, "
            "or not after that of the line before; give the file that was answered"
        )
    if group is not None:
        raise InputError(
            f"{scores}: line {group[0].line}: custom_id {group[0].custom_id!r} is not in "
            f"{answers}, or comes twice; score that file again"
        )


def _needs_score(sample: AnsweredSample) -> bool:
    """Others can be chosen by nobody."""
    return sample.is_whole and not sample.is_empty


def _scores_of(
    answer: AnswerRow, group: list[ScoreRow] | None, answers: Path, scores: Path
) -> tuple[ScoreRow | None, ...]:
    """The score of each sample, checked against it."""
    place = f"{answers}: line {answer.line}: {answer.custom_id!r}"
    if group is None:
        raise InputError(f"{scores}: ends before {place}; score that file again")
    if group[0].custom_id != answer.custom_id:
        raise InputError(
            f"{scores}: line {group[0].line}: is of {group[0].custom_id!r}, where {place} stands; "
            "scores must be of this file and in its order"
        )
    found: list[ScoreRow | None] = [None] * len(answer.samples)
    for row in group:
        where = f"{scores}: line {row.line}: sample {row.sample} of {row.custom_id!r}"
        if row.sample >= len(found):
            raise InputError(f"{where}: there are {len(found)} samples in {answers}")
        if found[row.sample] is not None:
            raise InputError(f"{where}: was scored in line {found[row.sample].line} already")
        if row.answer_sha256 not in (None, answer.samples[row.sample].sha256):
            raise InputError(f"{where}: another answer was scored than {answers} has")
        found[row.sample] = row
    for sample, score in zip(answer.samples, found, strict=True):
        if score is None and _needs_score(sample):
            raise InputError(f"{scores}: has no score of sample {sample.index} of {place}")
    return tuple(found)
