"""Scores of the answers of a batch job, as `llama-jax select` takes them."""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from llama_jax.batch_files.answer_row import AnsweredSample
from llama_jax.batch_files.job_origin import read_origin
from llama_jax.batch_files.joined_rows import joined_rows
from llama_jax.batch_files.score_row import ScoreRow
from llama_jax.chat import messages_from_dicts
from llama_jax.errors import InputError
from train.data.examples.dialog import Dialog
from train.scoring.dialog_tokens import DialogTokens
from train.scoring.kept_scores import KeptScores
from train.scoring.refused import Refused
from train.scoring.scored_rows import ReadRow, scored_rows, write_line
from train.selection.select_rows import dialog_of


def score_answers(
    scorer: KeptScores,
    tokens: DialogTokens,
    path: Path,
    file: BinaryIO,
    *,
    questions: Path,
    scored_by: tuple[str, str],
    on_error: str,
    quiet: bool,
) -> str:
    """Writes a line for each sample of `path` that is whole and not empty, and returns how many
    there are. Raises `InputError` naming the line and the field.

    Args:
      questions: that were answered.
      scored_by: name and SHA-256 of the reward model.
      on_error: for an answer that cannot be scored: `stop` raises, `skip` writes why.
    """
    refused = Refused(on_error)
    if (origin := read_origin(path)) is not None:
        origin.check_input(questions, path)

    def read() -> Iterator[ReadRow]:
        for row in joined_rows(questions, path):
            if row.answer is None:
                continue
            samples = [one for one in row.answer.samples if one.is_whole and not one.is_empty]
            texts, errors = [], {}
            for sample in samples:
                try:
                    dialog = _answered(dialog_of(row, origin), sample)
                    texts.append(tokens.of_dialog(dialog))
                except InputError as error:
                    refused.add(f"{path}: line {row.answer.line}: sample {sample.index}: {error}")
                    errors[sample.index] = str(error)
            named = (row.question.custom_id, samples, errors)
            yield ReadRow(named, texts, row.answer.num_bytes)

    count, total = 0, 0.0
    for (custom_id, samples, errors), scores in scored_rows(scorer, read(), path, quiet=quiet):
        given = iter(scores)
        for sample in samples:
            error = errors.get(sample.index)
            score = next(given) if error is None else None
            line = ScoreRow(
                custom_id, sample.index, score, *scored_by,
                answer_sha256=sample.sha256, error=error,
            )  # fmt: skip
            write_line(file, line.fields())
            if score is not None:
                count, total = count + 1, total + score
    if not count:
        raise InputError(f"{path}: has no answer that is whole{refused.said}")
    refused.tell()
    return f"{count:,} answers, mean score {total / count:.4f}{refused.said}"


def _answered(asked: dict, sample: AnsweredSample) -> Dialog:
    messages = messages_from_dicts([*asked["messages"], sample.message])
    return Dialog(tuple(messages), asked.get("tools"))
