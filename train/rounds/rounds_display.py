"""What post-training shows while it runs: a live line on a terminal, plain lines elsewhere."""

import sys
import time
from typing import Protocol

from train.rounds.plan import PlannedStep
from train.rounds.run_step import Ended
from train.terminal import clock_text


class RoundsDisplay(Protocol):
    """Shows steps."""

    def begin(self, planned: PlannedStep, *, index: int, num_steps: int) -> None:
        """A step starts, the one at `index` of `num_steps`."""

    def watch(self, line: str) -> None:
        """What it has said last."""

    def end(self, planned: PlannedStep, ended: Ended) -> None:
        """It is done."""

    def close(self) -> None:
        """Ends the display."""


def make_display(*, num_rounds: int, quiet: bool) -> RoundsDisplay:
    """The live one if stderr is a terminal."""
    if quiet:
        return Quiet()
    return LiveLine(num_rounds) if sys.stderr.isatty() else PlainLines()


class Quiet:
    """Shows nothing but what a step may have lost."""

    def begin(self, planned: PlannedStep, *, index: int, num_steps: int) -> None:
        pass

    def watch(self, line: str) -> None:
        pass

    def end(self, planned: PlannedStep, ended: Ended) -> None:
        if ended.code:
            _say(_end_line(planned, ended))

    def close(self) -> None:
        pass


class PlainLines(Quiet):
    """Two lines a step."""

    def begin(self, planned: PlannedStep, *, index: int, num_steps: int) -> None:
        _say(f"{planned.place} ({index + 1} of {num_steps}): {planned.line}")

    def end(self, planned: PlannedStep, ended: Ended) -> None:
        _say(_end_line(planned, ended))


class LiveLine:
    """Steps that are done as lines; under them a bar, and what the step under way says."""

    def __init__(self, num_rounds: int):
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        self._num_rounds = num_rounds
        self._bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=20),
            TextColumn("{task.completed}/{task.total}"),
            TextColumn("{task.fields[text]}", markup=False),
            console=Console(stderr=True),
        )
        self._task = None
        self._began = 0.0

    def begin(self, planned: PlannedStep, *, index: int, num_steps: int) -> None:
        name = f"round {planned.round.number} of {self._num_rounds}: {planned.step.name}"
        if self._task is None:
            self._task = self._bar.add_task(name, total=num_steps, text="")
            self._bar.start()
        self._bar.update(self._task, description=name, completed=index, text="")
        self._began = time.monotonic()

    def watch(self, line: str) -> None:
        self._bar.update(self._task, text=f"{clock_text(time.monotonic() - self._began)}  {line}")

    def end(self, planned: PlannedStep, ended: Ended) -> None:
        self._bar.console.print(_end_line(planned, ended), markup=False, highlight=False)

    def close(self) -> None:
        self._bar.stop()


def _end_line(planned: PlannedStep, ended: Ended) -> str:
    code = f", with code {ended.code}: see {planned.log}" if ended.code else ""
    return f"{planned.place}: done in {clock_text(ended.seconds)}{code}"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
