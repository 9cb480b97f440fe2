"""`llama-jax verify`: answers that a program can mark to a file of scores."""

import json
from collections import Counter
from pathlib import Path

import tyro

from llama_jax.batch_files.job_origin import read_origin
from llama_jax.batch_files.joined_rows import joined_rows
from llama_jax.batch_files.output_paths import check_outputs
from llama_jax.batch_files.score_row import ScoreRow
from llama_jax.checkpoints.transfer_progress import transfer_progress
from llama_jax.errors import InputError
from llama_jax.verifiers import verifier_of
from llama_jax.verifiers.reasoning_gym_task import RIGHT
from llama_jax.whole_file import whole_file


def verify(
    answers: tyro.conf.Positional[Path],
    output: tyro.conf.Positional[Path],
    *,
    questions: Path,
    overwrite: bool = False,
    quiet: bool = False,
) -> None:
    """Marks the answers of a batch job, 1 for right and 0 for wrong or something between.

    A question says in its `metadata` how: {"verifier": "exact", "answer": ...}, or as
    `python -m configs.reasoning_gym` writes it. OUTPUT has the form that `llama-jax select` takes.

    Example: llama-jax verify answers.jsonl scores.jsonl --questions questions.jsonl

    Args:
      answers: JSONL, as `llama-jax batch` wrote it.
      output: a line a sample: {"custom_id", "sample", "score", "model", "answer_sha256"}.
      questions: the rows that were answered.
      overwrite: replace an output that is there, once the new one is whole.
      quiet: print the result only.
    """
    check_outputs([output], [answers, questions], overwrite=overwrite)
    if (origin := read_origin(answers)) is not None:
        origin.check_input(questions, answers)
    size = answers.stat().st_size if answers.is_file() else 0
    scored, right = Counter(), Counter()
    num_questions = num_unanswered = 0
    with whole_file(output) as file, transfer_progress(answers.name, size, quiet=quiet) as advance:
        for row in joined_rows(questions, answers):
            num_questions += 1
            if row.answer is None:
                num_unanswered += 1
                continue
            try:
                marks = verifier_of(row.question.metadata)
                category = row.question.category or marks.name
                for sample in row.answer.samples:
                    score = marks(sample.text)
                    fields = ScoreRow(
                        row.question.custom_id, sample.index, score, marks.name,
                        answer_sha256=sample.sha256,
                    ).fields()  # fmt: skip
                    file.write(json.dumps(fields, ensure_ascii=False).encode() + b"\n")
                    scored[category] += 1
                    right[category] += score == RIGHT
            except InputError as error:
                raise InputError(f"{questions}: line {row.question.line}: {error}") from None
            advance(row.answer.num_bytes)
    print(f"{output}: {scored.total():,} answers, {right.total():,} of them right")
    if num_unanswered:
        print(
            f"  {num_unanswered:,} of {num_questions:,} questions have no answer and count nowhere"
        )
    for category, count in sorted(scored.items()):
        print(f"  {right[category] / count:7.1%} of {count:,}  {category}")
