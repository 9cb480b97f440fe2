"""From a question and its scored answers to a row of SFT and a row of preferences."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llama_jax.batch_files.job_origin import JobOrigin
from llama_jax.batch_files.joined_rows import JoinedRow
from llama_jax.chat import messages_from_dicts
from llama_jax.errors import InputError
from llama_jax.verifiers.reasoning_gym_task import RIGHT
from train.selection.candidates import Candidate, candidates, is_marked
from train.selection.duplicates import comparable
from train.selection.options import SelectionOptions
from train.selection.provenance import Provenance


@dataclass(frozen=True)
class SelectedRow:
    """What is made of one question; a part that it gives nothing for is None."""

    sft: dict[str, Any] | None
    preference: dict[str, Any] | None


@dataclass
class RowSelector:
    """Makes rows of questions, one after another, and counts what is left out.

    Attributes:
      questions: the file that errors name.
      samples_dropped, sft_dropped, preferences_dropped: reason -> how many.
    """

    options: SelectionOptions
    provenance: Provenance
    questions: Path
    samples_dropped: Counter = field(default_factory=Counter)
    sft_dropped: Counter = field(default_factory=Counter)
    preferences_dropped: Counter = field(default_factory=Counter)

    def __post_init__(self):
        self._seen: set[bytes] = set()

    def select(self, row: JoinedRow) -> SelectedRow:
        """The rows of one question. Raises `InputError` that names its line."""
        try:
            return self._select(row)
        except InputError as error:
            place = f"{self.questions}: line {row.question.line}"
            raise InputError(f"{place}: {error}") from None

    def _select(self, row: JoinedRow) -> SelectedRow:
        if row.answer is None:
            return self._nothing("no answer: the row has failed")
        dialog = dialog_of(row, self.provenance.origin)
        asked = comparable(dialog, self.options.duplicates)
        if asked in self._seen:
            return self._nothing("a prompt that came before")
        self._seen.add(asked)
        best_first = candidates(row, self.options.duplicates, self.samples_dropped)
        if not best_first:
            return self._nothing("no answer that is whole")
        best, least = best_first[0], self.options.minimum_score
        if least is None and is_marked(best.score) and best.score.score < RIGHT:
            return self._nothing("no answer that its verifier calls right")
        if least is not None and best.score.score < least:
            return self._nothing("best score under --minimum-score")
        answered = [*dialog["messages"], best.sample.message]
        sft = {**dialog, "messages": answered}
        sft["provenance"] = self.provenance.of(row, answer=best)
        return SelectedRow(sft, self._preference(row, dialog, best_first))

    def _preference(
        self, row: JoinedRow, dialog: dict[str, Any], best_first: list[Candidate]
    ) -> dict[str, Any] | None:
        gap = self.options.minimum_gap
        if gap is None:
            return None
        best = best_first[0]
        worse = [one for one in best_first if best.score.score - one.score.score >= gap]
        if not worse:
            self.preferences_dropped["no answer worse by --minimum-gap"] += 1
            return None
        rejected = worse[-1]
        if self.options.rejected == "drawn":
            place = self.options.draw("rejected", row.question.custom_id) % len(worse)
            rejected = sorted(worse, key=lambda one: one.sample.index)[place]
        category = row.question.category
        return {
            **dialog,
            "chosen": best.sample.message,
            "rejected": rejected.sample.message,
            **({} if category is None else {"category": category}),
            "provenance": self.provenance.of(row, chosen=best, rejected=rejected),
        }

    def _nothing(self, reason: str) -> SelectedRow:
        self.sft_dropped[reason] += 1
        if self.options.minimum_gap is not None:
            self.preferences_dropped[reason] += 1
        return SelectedRow(None, None)


def dialog_of(row: JoinedRow, origin: JobOrigin | None) -> dict[str, Any]:
    """`messages` up to the answer, and `tools` if there are any. Raises `InputError` for a text to
    be continued, which is no dialog, and for one in which it is not the assistant's turn."""
    body = row.question.body
    if "messages" in body:
        messages = body["messages"]
    else:
        if origin is None or origin.options.get("format") != "chat":
            raise InputError(
                "prompt: may have been a text to be continued; ask with messages, or with "
                "llama-jax batch --format chat"
            )
        messages = [{"role": "user", "content": body["prompt"]}]
    last = messages_from_dicts(messages)[-1].role
    if last not in ("user", "tool"):
        raise InputError(f"messages: must end with what a user or a tool says, not with {last}")
    return {"messages": messages} | ({"tools": body["tools"]} if body.get("tools") else {})
