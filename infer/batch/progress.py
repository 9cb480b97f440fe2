"""How far a job has come: a bar on a terminal, a plain line every ten seconds elsewhere.

The time left follows from the work that is done, by estimated length, and not from the number of
rows: the longest come first.
"""

import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from infer.batch.part_file import FinishedRow
from infer.batch.work_done import WorkDone

_SECONDS_BETWEEN_LINES, _SECONDS_BETWEEN_DRAWINGS = 10.0, 0.5


class BatchProgress:
    """A context while rows are answered.

    Attributes:
      work: of the rows that this process has finished.
      seconds: since it was entered.
    """

    def __init__(self, num_rows: int, *, quiet: bool, speaks: bool = True):
        """
        Args:
          quiet: plain lines only.
          speaks: False in a process of a mesh whose first process speaks for all.
        """
        self._num_rows = num_rows
        self._speaks = speaks
        self._bar: Any = None
        self._draws = speaks and not quiet and sys.stderr.isatty()
        self._pause = _SECONDS_BETWEEN_DRAWINGS if self._draws else _SECONDS_BETWEEN_LINES
        self._start = self._shown = time.monotonic()
        self._share_before: float | None = None
        self._streamed = 0
        self._has_failed = False
        self.work = WorkDone()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._start

    def __enter__(self) -> "BatchProgress":
        self._start = self._shown = time.monotonic()
        if self._draws:
            self._bar = _bar()
            self._bar.start()
            self._task = self._bar.add_task("rows", total=self._num_rows, rate="", left="")
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def count(self, new_tokens: int) -> None:
        """Tokens that came, of rows that may go on."""
        self._streamed += new_tokens

    def failed(self, line: int, reason: str) -> None:
        """A row that cannot be answered; the first is told at once, as all may fail alike."""
        if self._has_failed or not self._speaks:
            return
        self._has_failed = True
        text = f"line {line} failed: {reason} (the first; all go to the file of errors)"
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=sys.stderr, flush=True)

    def finished(self, rows: Sequence[FinishedRow]) -> None:
        """Rows that are kept now."""
        for row in rows:
            self.work.add(row)

    def show(self, share_done: Callable[[], tuple[int, float]]) -> None:
        """Shows how far it is, if it is time to.

        Args:
          share_done: gives the rows of the job that are finished, and their share of its work.
        """
        now = time.monotonic()
        if self._share_before is None:
            self._share_before = share_done()[1]
        if now - self._shown < self._pause:
            return
        self._shown = now
        rows, share = share_done()
        done = share - self._share_before
        seconds_left = (1 - share) / done * self.seconds if done > 0 else None
        rate = f"{self._streamed / max(self.seconds, 1e-9):,.0f} tokens/s"
        left = "" if seconds_left is None else f"{_clock(seconds_left)} left"
        if self._bar is not None:
            self._bar.update(self._task, completed=rows, rate=rate, left=left)
        else:
            parts = [f"{rows:,} of {self._num_rows:,} rows", rate, left]
            print(", ".join(part for part in parts if part), file=sys.stderr, flush=True)


def _bar() -> Any:
    from rich import progress
    from rich.console import Console

    return progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TextColumn("{task.fields[rate]}"),
        progress.TextColumn("{task.fields[left]}"),
        console=Console(stderr=True),
    )


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
