"""The loop: rows from the supply to the engine, answers from the engine to the disk.

Only rows near the engine are held: those it works on, and as many again that wait. What has
finished in one step of the engine is written and synced together, before the next step.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from infer.answers import AnswerDelta, AnswerRequest
from infer.batch.mesh_peers import MeshPeers
from infer.batch.part_file import FinishedRow, PartWriter
from infer.batch.progress import BatchProgress
from infer.batch.row_output import RowOutputs, RowResponse
from infer.batch.row_supply import RowSupply
from infer.batch.row_table import RowTable
from infer.batch.stop_signals import StopSignals
from infer.protocol import ParsedRequest
from llama_jax.batch_files.batch_row import BatchRow, RowError
from llama_jax.errors import InputError

_SECONDS_TO_WAIT = 0.5  # for other processes, when no row is left for this one


class Answers(Protocol):
    """What the loop needs of `infer.answers.Answering`."""

    def add(self, request: AnswerRequest) -> int: ...

    def cancel(self, answer_id: int) -> None: ...

    def step(self) -> list[AnswerDelta]: ...


@dataclass
class _Question:
    """A row that the engine has."""

    row: int
    asked: BatchRow
    response: RowResponse
    answer_ids: tuple[int, ...]
    samples: int


@dataclass
class BatchRunner:
    """Answers rows until there are none.

    Attributes:
      table: of the input.
      supply: the rows; None in a process of a mesh that does not decide (see `MeshPeers`).
      writer: where finished rows go; None likewise.
      window: samples that are handed to the engine ahead of time, those it works on included.
    """

    table: RowTable
    supply: RowSupply | None
    writer: PartWriter | None
    answering: Answers
    parse: Callable[[BatchRow], ParsedRequest]
    outputs: RowOutputs
    window: int
    peers: MeshPeers
    progress: BatchProgress
    stop: StopSignals

    def __post_init__(self):
        self._in_hand: dict[int, tuple[_Question, int]] = {}  # by answer id
        self._samples = 0  # of all that are in hand
        self._finished: list[FinishedRow] = []

    def run(self) -> bool:
        """Whether the job has come to its end; if not, this process was told to stop.

        Raises `InputError` if the input has changed meanwhile.
        """
        step = 0
        with open(self.table.path, "rb") as file:
            while not self.stop.requested(step):
                step += 1
                is_over, rows = self._next_rows()
                if is_over:
                    return True
                for row in rows:
                    self._begin(row, file)
                if self._in_hand:
                    self._take(self.answering.step())
                elif not rows:
                    time.sleep(_SECONDS_TO_WAIT)
                self._keep()
        return False

    def _next_rows(self) -> tuple[bool, list[int]]:
        """Whether the job is over, and the next rows: what process 0 says."""
        message: list[int] = []
        if self.supply is not None:
            rows = self.supply.next_rows(self.window - self._samples)
            is_over = not rows and not self._in_hand and self.supply.end()
            message = [int(is_over), *rows]
        is_over, *rows = self.peers.agree(message, most=1 + self.window)
        return bool(is_over), rows

    def _begin(self, row: int, file: BinaryIO) -> None:
        """Gives a row to the engine; one that cannot be answered is finished at once."""
        try:
            asked = self.table.read(file, row)
        except RowError as error:
            self._refuse(row, error.custom_id, error, is_openai=False)
            return
        added: list[int] = []
        try:
            request = self.parse(asked)
            for answer in request.answers:
                added.append(self.answering.add(answer))
        except InputError as error:
            for answer_id in added:
                self.answering.cancel(answer_id)
            self._refuse(row, asked.custom_id, error, is_openai=not asked.is_plain)
            return
        samples = sum(answer.n for answer in request.answers)
        response = self.outputs.response(asked, request)
        question = _Question(row, asked, response, tuple(added), samples)
        self._samples += samples
        for number, answer_id in enumerate(added):
            self._in_hand[answer_id] = question, number

    def _refuse(self, row: int, custom_id: str, error: InputError, *, is_openai: bool) -> None:
        line = int(self.table.rows["line"][row])
        self.progress.failed(line, str(error))
        failed = self.outputs.refused(row, line, custom_id, error, is_openai=is_openai)
        self._finished.append(failed)

    def _take(self, deltas: list[AnswerDelta]) -> None:
        """Adds what is new to the answers in hand."""
        for delta in deltas:
            if delta.answer_id not in self._in_hand:
                continue  # a sample of a row that has failed in this very step
            question, number = self._in_hand[delta.answer_id]
            response = question.response
            response.add(number, delta)
            self.progress.count(len(delta.tokens))
            if response.error is not None:
                self.progress.failed(question.asked.line, response.error)
                self._finish(
                    question, self.outputs.broken(question.row, question.asked, response.error)
                )
            elif response.is_finished:
                body = response.body()
                self._finish(question, self.outputs.answered(question.row, question.asked, body))

    def _finish(self, question: _Question, finished: FinishedRow) -> None:
        for answer_id in question.answer_ids:
            self.answering.cancel(answer_id)  # nothing is left of it, but of a row that failed
            del self._in_hand[answer_id]
        self._samples -= question.samples
        self._finished.append(finished)

    def _keep(self) -> None:
        """Brings to the disk what has finished in this step."""
        if self._finished and self.writer is not None:
            self.writer.append(self._finished)
            self.supply.finished(finished.row for finished in self._finished)
        self.progress.finished(self._finished)
        self._finished = []
        if self.supply is not None:
            self.progress.show(self.supply.share_done)
