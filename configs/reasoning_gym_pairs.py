"""`python -m configs.reasoning_gym_pairs ANSWERS --questions Q --scores S --licence L --output O`:
the right answer of reasoning-gym against a wrong one of the model's own.

A model that is seldom right gives `llama-jax select` few pairs, since both answers of a pair are
its own there. Here the right one is the package's, so every question that the model has answered
wrongly at least once gives a pair, with a mistake that this model really makes.
"""

import importlib.metadata
import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tyro

from llama_jax.batch_files.job_origin import read_origin
from llama_jax.batch_files.joined_rows import JoinedRow, joined_rows
from llama_jax.batch_files.output_paths import check_outputs
from llama_jax.errors import InputError
from llama_jax.verifiers import verifier_of
from llama_jax.verifiers.reasoning_gym_task import RIGHT
from llama_jax.verifiers.verifier import ReasoningGymQuestion
from llama_jax.whole_file import whole_file
from train.selection.candidates import candidates
from train.selection.options import SelectionOptions
from train.selection.provenance import Provenance


def export_pairs(
    answers: tyro.conf.Positional[Path],
    *,
    questions: Path,
    scores: Path,
    output: Path,
    licence: str,
    model: str | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> None:
    """Writes a preference row for each question that was answered wrongly.

    Answers that were cut off or are empty are in no row, as with `llama-jax select`.

    Args:
      answers: to QUESTIONS, as `llama-jax batch` wrote them.
      questions: as `python -m configs.reasoning_gym` wrote them.
      scores: of ANSWERS, as `llama-jax verify` wrote them.
      output: the rows.
      licence: of the model's answers.
      model: who answered, where ANSWERS has no manifest and does not say.
      seed: of the draw among several wrong answers.
      overwrite: replace an output that is there, once the new one is whole.
    """
    check_outputs([output], [answers, questions, scores], overwrite=overwrite)
    options = SelectionOptions(seed=seed)
    origin = read_origin(answers)
    if origin is not None:
        origin.check_input(questions, answers)
    provenance = Provenance(answers, origin, model, licence)
    count = 0
    with whole_file(output) as file:
        for pair in _pairs(joined_rows(questions, answers, scores), options, provenance):
            file.write(json.dumps(pair, ensure_ascii=False).encode() + b"\n")
            count += 1
    print(f"{output}: {count:,} rows of preferences")


def _pairs(
    rows: Iterator[JoinedRow], options: SelectionOptions, provenance: Provenance
) -> Iterator[dict[str, Any]]:
    version = importlib.metadata.version("reasoning-gym")
    for row in rows:
        verifier = verifier_of(row.question.metadata)
        if not isinstance(verifier, ReasoningGymQuestion):
            raise InputError(f"{row.question.custom_id}: is no question of reasoning-gym")
        if row.answer is None:
            continue
        there = candidates(row, options.duplicates, Counter())
        wrong = [one for one in there if one.score.score < RIGHT]
        if not wrong:
            continue
        drawn = wrong[options.draw("rejected", row.question.custom_id) % len(wrong)]
        yield {
            "messages": row.question.body["messages"],
            "chosen": verifier.task.question(verifier.index).answer,
            "rejected": drawn.sample.message,
            "category": verifier.task.name,
            "provenance": {
                "chosen": {"source": f"reasoning-gym {version}", "licence": "Apache-2.0"},
                "rejected": provenance.of(row, answer=drawn),
                "custom_id": row.question.custom_id,
                **verifier.task.metadata(verifier.index),
            },
        }


if __name__ == "__main__":
    from llama_jax.command_line import bind_arguments

    prog = "python -m configs.reasoning_gym_pairs"
    try:
        bind_arguments(export_pairs, prog=prog, arguments=sys.argv[1:])()
    except InputError as error:
        sys.exit(f"error: {error}")
