"""A job whose rows Prompt Guard judges: the files and claims of a batch job, without an engine."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal

from infer.batch.job import Job
from infer.batch.part_file import FinishedRow, json_text
from infer.batch.progress import BatchProgress
from infer.batch.row_output import RowOutputs
from infer.batch.row_table import RowTable
from infer.batch.run_job import JobRun
from infer.batch.workbench import workbench
from infer.guard.guard_rows import row_messages
from llama_jax.batch_files.batch_row import RowError
from llama_jax.chat import Message
from llama_jax.errors import InputError
from llama_jax.safety.prompt_guard import LABELS, PromptGuard, Source, TextScores

SourceChoice = Literal["auto", "user", "third_party"]
_SECONDS_TO_WAIT = 0.5  # for other processes, when no row is left for this one


@dataclass(frozen=True)
class _Text:
    """A row's text that is to be judged."""

    row: int
    custom_id: str
    ids: list[int]
    source: Source


@dataclass
class PromptGuardJob:
    """Judges rows until there are none.

    Attributes:
      job: opened; not finished.
      source: whose texts they are; `auto` goes by the role of the last message.
      threshold: a risk above it is unsafe.
      group_rows: rows that are judged, and then kept, together.
      say: told what was found of an earlier start.
    """

    job: Job
    table: RowTable
    guard: PromptGuard
    source: SourceChoice
    threshold: float
    group_rows: int
    say: Callable[[str], None]
    quiet: bool

    def run(self) -> JobRun:
        """Raises `InputError` if the input has changed meanwhile."""
        table, manifest = self.table, self.job.manifest
        self._outputs = RowOutputs(manifest.input_sha256, manifest.created)
        step, is_over = 0, False
        with (
            workbench(self.job, table, say=self.say, quiet=self.quiet) as bench,
            open(table.path, "rb") as file,
        ):
            while not (is_over or bench.stop.requested(step)):
                step += 1
                rows = bench.supply.next_rows(self.group_rows)
                finished = self._judge(rows, file, bench.progress)
                bench.writer.append(finished)
                bench.supply.finished(rows)
                bench.progress.finished(finished)
                bench.progress.show(bench.supply.share_done)
                is_over = not rows and bench.supply.end()
                if not rows and not is_over:
                    time.sleep(_SECONDS_TO_WAIT)
            seconds = bench.progress.seconds
        return JobRun(None if is_over else bench.stop.exit_code, bench.progress.work, seconds)

    def _judge(self, rows: list[int], file: BinaryIO, progress: BatchProgress) -> list[FinishedRow]:
        texts, finished = [], []
        for row in rows:
            try:
                texts.append(self._text(row, file))
            except RowError as error:
                line = int(self.table.rows["line"][row])
                progress.failed(line, str(error))
                finished.append(
                    self._outputs.refused(row, line, error.custom_id, error, is_openai=False)
                )
        for text, scores in zip(
            texts, self.guard.scores([text.ids for text in texts]), strict=True
        ):
            progress.count(len(text.ids))
            fields = {"custom_id": text.custom_id, **self._verdict(scores, text.source)}
            finished.append(FinishedRow(text.row, "output", json_text(fields), len(text.ids)))
        return finished

    def _text(self, row: int, file: BinaryIO) -> _Text:
        asked = self.table.read(file, row)
        try:
            message = row_messages(asked)[-1]
            source = _source(message) if self.source == "auto" else self.source
            ids = self.guard.encode(message.content)
        except InputError as error:
            raise RowError(str(error), asked.custom_id) from None
        return _Text(row, asked.custom_id, ids, source)

    def _verdict(self, scores: TextScores, source: Source) -> dict[str, Any]:
        risks = scores.risks(source)
        worst = int(risks.argmax())
        probabilities = scores.probabilities[worst]
        return {
            "verdict": "unsafe" if risks[worst] > self.threshold else "safe",
            "score": _rounded(risks[worst]),
            "source": source,
            "label": LABELS[int(probabilities.argmax())],
            "probabilities": dict(zip(LABELS, map(_rounded, probabilities), strict=True)),
            "window": worst,
            "windows": len(risks),
        }


def _source(message: Message) -> Source:
    if message.role == "assistant":
        raise InputError(
            "messages: the last is the assistant's, and Prompt Guard judges what a model is given; "
            "say with --source whose text it is, or end with a user's or a tool's message"
        )
    return "third_party" if message.role == "tool" else "user"


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")
