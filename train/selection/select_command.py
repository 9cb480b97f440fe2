"""`llama-jax select`: scored answers to rows of SFT and of preferences."""

import contextlib
from array import array
from pathlib import Path
from typing import Literal

import tyro

from llama_jax.batch_files.job_origin import read_origin
from llama_jax.batch_files.joined_rows import joined_rows
from llama_jax.batch_files.output_paths import check_outputs
from llama_jax.checkpoints.transfer_progress import transfer_progress
from llama_jax.errors import InputError
from train.selection.candidates import is_marked
from train.selection.options import SelectionOptions, parse_quotas
from train.selection.provenance import Provenance
from train.selection.quota_file import QuotaFile
from train.selection.select_rows import RowSelector
from train.selection.summary import dropped_lines, file_summary, score_histogram


def select(
    answers: tyro.conf.Positional[Path],
    *,
    questions: Path,
    scores: Path,
    licence: str,
    sft: Path | None = None,
    preferences: Path | None = None,
    minimum_score: float | None = None,
    minimum_gap: float | None = None,
    rejected: Literal["worst", "drawn"] = "worst",
    duplicates: Literal["exact", "normalised"] = "normalised",
    quota: tyro.conf.UseAppendAction[tuple[str, ...]] = (),
    model: str | None = None,
    seed: int = 0,
    overwrite: bool = False,
    quiet: bool = False,
) -> None:
    """Chooses among the answers of a batch job: the best of each question for SFT, the best and a
    worse one as a preference pair.

    QUESTIONS and ANSWERS are what `llama-jax batch` read and wrote, with several samples a row
    ("n": 16); SCORES is what `llama-jax score` or `llama-jax verify` made of ANSWERS. Answers that
    were cut off, are empty, or repeat another one to the same question are in no row. Questions
    that were asked before are left out. A row's category is its `metadata.category`.

    Example: llama-jax select answers.jsonl --questions questions.jsonl --scores scores.jsonl
    --licence Apache-2.0 --sft sft.jsonl --preferences pairs.jsonl --minimum-gap 1.0

    Args:
      answers: JSONL, in OpenAI's batch format or plain rows.
      questions: the rows that were answered.
      scores: {"custom_id", "sample", "score"} a line, in the order of ANSWERS.
      licence: of the answers, as every row will say; of a model's answers that of the model.
      sft: where to write rows with the best answer.
      preferences: where to write pairs.
      minimum_score: leave out questions whose best answer has less; by default those whose best
        answer a verifier has marked as anything but right, and no others.
      minimum_gap: the least difference between the scores of a pair.
      rejected: of a pair the worst answer, or one drawn among those that are worse by the gap.
      duplicates: whether texts are the same letter for letter (exact), or but for case and spaces.
      quota: CATEGORY=ROWS, at most; give the option again for more, and * for all others.
      model: who answered, where ANSWERS has no manifest and does not say.
      seed: of what is drawn.
      overwrite: replace an output that is there, once the new one is whole.
      quiet: print the result only.
    """
    if sft is None and preferences is None:
        raise InputError("give --sft, --preferences or both: there is nothing to write")
    if (preferences is None) != (minimum_gap is None):
        raise InputError("--preferences and --minimum-gap belong together: give both or none")
    options = SelectionOptions(
        minimum_score=minimum_score,
        minimum_gap=minimum_gap,
        rejected=rejected,
        duplicates=duplicates,
        quotas=parse_quotas(quota),
        seed=seed,
    )
    if not licence.strip():
        raise InputError("--licence: is empty; name the licence of the answers")
    check_outputs([sft, preferences], [answers, questions, scores], overwrite=overwrite)
    origin = read_origin(answers)
    if origin is not None:
        origin.check_input(questions, answers)
    provenance = Provenance(answers, origin, model, licence)
    print(
        "\n".join(_select(answers, questions, scores, sft, preferences, options, provenance, quiet))
    )


def _select(
    answers: Path,
    questions: Path,
    scores: Path,
    sft: Path | None,
    preferences: Path | None,
    options: SelectionOptions,
    provenance: Provenance,
    quiet: bool,
) -> list[str]:
    """Writes the outputs; what there is to say of them."""
    selector = RowSelector(options, provenance, questions)
    all_scores = array("f")
    categories: set[str | None] = set()
    verified = True
    with contextlib.ExitStack() as stack:
        files = {
            name: stack.enter_context(QuotaFile(path, options.quota))
            for name, path in (("sft", sft), ("preference", preferences))
            if path is not None
        }
        size = answers.stat().st_size if answers.is_file() else 0
        advance = stack.enter_context(transfer_progress(answers.name, size, quiet=quiet))
        for row in joined_rows(questions, answers, scores):
            selected = selector.select(row)
            categories.add(row.question.category)
            there = [score for score in row.scores if score is not None and score.error is None]
            all_scores.extend(score.score for score in there)
            verified &= all(map(is_marked, there))
            for name, file in files.items():
                fields = getattr(selected, name)
                if fields is not None:
                    draw = options.draw("quota", row.question.custom_id)
                    file.add(fields, category=row.question.category, draw=draw)
            if row.answer is not None:
                advance(row.answer.num_bytes)
        _check_quotas(options, categories)
        if not verified and options.minimum_score is None:
            _check_not_marks(all_scores, scores)
        for file in files.values():
            file.finish()
    lines = [f"{len(all_scores):,} scored answers", *score_histogram(all_scores)]
    lines += dropped_lines(selector.samples_dropped)
    for name, title, dropped in (
        ("sft", "SFT", selector.sft_dropped),
        ("preference", "preferences", selector.preferences_dropped),
    ):
        if name in files:
            lines += file_summary(title, files[name], dropped)
    return lines


def _check_not_marks(all_scores: array, scores: Path) -> None:
    """Whether a 0 is wrong or only worse than a 1 is not ours to guess."""
    if set(all_scores) == {0.0, 1.0}:
        raise InputError(
            f"{scores}: all scores are 0 or 1, and no verifier is named; say with --minimum-score "
            "which answers may be learnt from, such as --minimum-score 1"
        )


def _check_quotas(options: SelectionOptions, categories: set[str | None]) -> None:
    """A quota for a category that no question has is a misspelt one."""
    for category in options.quotas:
        if category != "*" and category not in categories:
            known = ", ".join(sorted(filter(None, categories))) or "none"
            raise InputError(
                f"--quota {category}: no question has this category; there are: {known}"
            )
