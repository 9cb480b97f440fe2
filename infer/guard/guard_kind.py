"""Jobs whose rows are dialogs, and are judged: `llama-jax guard`."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from infer.answers import AnswerDelta, CollectedAnswer
from infer.batch.job import Job
from infer.batch.manifest import Manifest
from infer.batch.part_file import FinishedRow, json_text
from infer.batch.row_output import RowOutputs
from infer.batch.row_table import RowTable
from infer.engine.engine import Engine
from infer.guard.form_notes import form_notes
from infer.guard.guard_options import GuardOptions
from infer.guard.guard_rows import row_messages
from infer.guard.judge import JUDGING, Judge
from infer.guard.verdict_counts import verdict_counts
from infer.load_engine import EngineOptions
from infer.loaded_model import LoadedModel
from infer.protocol import ParsedRequest
from infer.sampling import SamplingMode
from llama_jax.batch_files.batch_row import BatchRow
from llama_jax.errors import InputError
from llama_jax.safety import LlamaGuard, guard_turns
from llama_jax.safety.guard_turns import Judged


@dataclass(frozen=True)
class GuardKind:
    """`JobKind` of dialogs.

    Attributes:
      model: what an error calls the guard: its path or repository id.
      judged: which turn of each.
    """

    model: str
    options: GuardOptions
    guard: LlamaGuard
    judged: Judged
    engine: EngineOptions

    @property
    def of_answers(self) -> dict[str, Any]:
        of_engine = dataclasses.asdict(self.engine)
        del of_engine["cache_gigabytes"]
        return {**self.options.of_answers, "judged": self.judged, **of_engine}

    def limit(self, context_length: int) -> Callable[[BatchRow], int]:
        return lambda row: len(self.guard.longest_verdict())  # about, for the order of the rows

    def modes(self, table: RowTable) -> tuple[SamplingMode, ...]:
        return (JUDGING,)

    def parser(self, loaded: LoadedModel, engine: Engine) -> Callable[[BatchRow], ParsedRequest]:
        judge = self._judge(loaded, engine)

        def parse(row: BatchRow) -> ParsedRequest:
            turns = guard_turns(row_messages(row), judged=self.judged)
            return ParsedRequest("chat", "guard", (judge.request(turns),))

        return parse

    def notes(self, loaded: LoadedModel) -> list[str]:
        return form_notes(self.options.form, loaded)

    def outputs(self, manifest: Manifest, loaded: LoadedModel, engine: Engine) -> "GuardOutputs":
        judge = self._judge(loaded, engine)
        return GuardOutputs(manifest.input_sha256, manifest.created, judge)

    def _judge(self, loaded: LoadedModel, engine: Engine) -> Judge:
        return Judge(self.guard, loaded, max_length=engine.settings.max_length, model=self.model)

    def summary(self, job: Job) -> list[str]:
        return verdict_counts(job.output, "categories")


@dataclass(frozen=True)
class GuardOutputs(RowOutputs):
    """Writes plain objects, whatever the format of the row."""

    judge: Judge

    def response(self, row: BatchRow, request: ParsedRequest) -> "JudgedResponse":
        return JudgedResponse(self.judge, num_prompt_tokens=len(request.answers[0].prompt))

    def answered(self, row: int, question: BatchRow, body: dict[str, Any]) -> FinishedRow:
        usage = body["usage"]
        text = json_text({"custom_id": question.custom_id, **body})
        return FinishedRow(row, "output", text, usage["prompt_tokens"], usage["completion_tokens"])

    def refused(
        self, row: int, line: int, custom_id: str, error: InputError, *, is_openai: bool
    ) -> FinishedRow:
        return super().refused(row, line, custom_id, error, is_openai=False)

    def broken(self, row: int, question: BatchRow, reason: str) -> FinishedRow:
        return super().broken(row, dataclasses.replace(question, is_plain=True), reason)


class JudgedResponse:
    """Collects what the guard says of one row (`RowResponse`)."""

    def __init__(self, judge: Judge, *, num_prompt_tokens: int):
        self._judge = judge
        self._num_prompt_tokens = num_prompt_tokens
        self._answer = CollectedAnswer()

    @property
    def is_finished(self) -> bool:
        return self._answer.finish_reason is not None

    @property
    def error(self) -> str | None:
        if self._answer.finish_reason != "error":
            return None
        return self._answer.error or "the answer failed"

    def add(self, number: int, delta: AnswerDelta) -> None:
        self._answer.add(delta)

    def body(self) -> dict[str, Any]:
        """Verdict, categories, score, and tokens that it took."""
        usage = {
            "prompt_tokens": self._num_prompt_tokens,
            "completion_tokens": self._answer.num_new_tokens,
        }
        return {**self._judge.judgement(self._answer).fields(), "usage": usage}
