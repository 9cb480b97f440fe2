"""The answers to one question among which may be chosen, best first."""

from collections import Counter
from dataclasses import dataclass

from llama_jax.batch_files.answer_row import AnsweredSample
from llama_jax.batch_files.joined_rows import JoinedRow
from llama_jax.batch_files.score_row import ScoreRow
from llama_jax.chat import messages_from_dicts
from llama_jax.errors import InputError
from llama_jax.verifiers import is_verifier
from train.selection.duplicates import Duplicates, comparable


@dataclass(frozen=True)
class Candidate:
    """An answer and how good it is."""

    sample: AnsweredSample
    score: ScoreRow


def is_marked(score: ScoreRow) -> bool:
    """Whether a verifier scored, of which RIGHT is known to be right, and no model."""
    return score.model_sha256 is None and is_verifier(score.model)


def candidates(row: JoinedRow, duplicates: Duplicates, dropped: Counter) -> list[Candidate]:
    """Those that a model can learn from, by falling score; of equal scores the earlier sample comes
    first, so that ties are decided by no more than how the samples were drawn.

    An answer that was cut off would teach to stop anywhere, so it is in no row, as a bad one
    neither. Of answers that are the same the first counts.

    Args:
      dropped: counts what is left out, by reason.
    """
    kept: list[Candidate] = []
    seen: set[bytes] = set()
    for sample, score in zip(row.answer.samples, row.scores, strict=True):
        reason = _complaint(sample, score)
        if reason is None:
            text = comparable([sample.text, list(sample.tool_calls)], duplicates)
            reason = "said before to this prompt" if text in seen else None
            seen.add(text)
        if reason is not None:
            dropped[reason] += 1
            continue
        kept.append(Candidate(sample, score))
    return sorted(kept, key=lambda one: (-one.score.score, one.sample.index))


def _complaint(sample: AnsweredSample, score: ScoreRow | None) -> str | None:
    if sample.finish_reason == "length":
        return "cut off at its limit"
    if not sample.is_whole:
        return f"not finished ({sample.finish_reason[:40]})"
    if sample.is_empty:
        return "empty"
    try:
        messages_from_dicts([sample.message])
    except InputError:
        return "malformed (text or tool calls)"
    # One that is whole has a score, or a line that says why not.
    return None if score.error is None else "could not be scored"
