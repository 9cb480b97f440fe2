"""What a run shows while it goes: a live line on a terminal, plain lines elsewhere; on stderr."""

import sys
import time
from collections import deque
from typing import Any, Protocol

from train.metrics_file import number

_WINDOW = 50  # written lines over which the time left is reckoned


class Terminal(Protocol):
    """Shows a run."""

    def begin_stage(self, name: str, *, first_step: int, num_steps: int) -> None:
        """The lines that follow are of this stage, whose first step is `first_step` + 1."""

    def show(self, step: int, kind: str, values: dict[str, Any]) -> None:
        """Shows the values of one line."""

    def say(self, text: str) -> None:
        """Shows a line of words, of no step."""

    def close(self) -> None:
        """Ends the display."""


def make_terminal(*, quiet: bool) -> Terminal:
    """The live one if stderr is a terminal and the user did not ask for quiet."""
    return LiveTerminal() if sys.stderr.isatty() and not quiet else LineTerminal()


class TimeLeft:
    """Seconds to the end of the stage at the pace of the latest lines."""

    def __init__(self, clock=time.monotonic):
        self._clock = clock
        self._seen: deque[tuple[int, float]] = deque(maxlen=_WINDOW)

    def at(self, step: int, last_step: int) -> float | None:
        """After `step` steps, with the stage ending after `last_step`; None at the first line."""
        self._seen.append((step, self._clock()))
        (first, began), (_, now) = self._seen[0], self._seen[-1]
        return (last_step - step) * (now - began) / (step - first) if step > first else None


class LineTerminal:
    """One line for each line of metrics."""

    def __init__(self):
        self._stage = None

    def begin_stage(self, name: str, *, first_step: int, num_steps: int) -> None:
        self._stage, self._last_step, self._left = name, first_step + num_steps, TimeLeft()

    def show(self, step: int, kind: str, values: dict[str, Any]) -> None:
        if kind == "train" and self._stage is not None:
            left = self._left.at(step, self._last_step)
            text = f"{self._stage} step {step}/{self._last_step}  {progress_text(values, left)}"
        else:
            text = other_text(step, kind, values)
        self.say(text)

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        pass


class LiveTerminal:
    """A bar with the latest step's values; evaluations and events stand above it as lines."""

    def __init__(self):
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        self._bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[count]}"),
            TextColumn("{task.fields[text]}", markup=False),
            console=Console(stderr=True),
        )
        self._task, self._first_step, self._last_step = None, 0, 0
        self._left = TimeLeft()

    def begin_stage(self, name: str, *, first_step: int, num_steps: int) -> None:
        self._first_step, self._last_step = first_step, first_step + num_steps
        self._left = TimeLeft()
        if self._task is not None:
            self._bar.stop_task(self._task)
        self._task = self._bar.add_task(name, total=num_steps, count="", text="starting")
        self._bar.start()

    def show(self, step: int, kind: str, values: dict[str, Any]) -> None:
        if kind == "train" and self._task is not None:
            self._bar.update(
                self._task,
                completed=step - self._first_step,
                count=f"{step}/{self._last_step}",
                text=progress_text(values, self._left.at(step, self._last_step)),
            )
        else:
            self.say(other_text(step, kind, values))

    def say(self, text: str) -> None:
        self._bar.console.print(text, markup=False, highlight=False)

    def close(self) -> None:
        self._bar.stop()


def progress_text(values: dict[str, Any], seconds_left: float | None) -> str:
    """Loss, rate and time left of a training step, as far as they are known."""
    parts = []
    if (loss := number(values.get("loss"))) is not None:
        parts.append(f"loss {loss:.4f}")
    if (rate := number(values.get("tokens_per_second"))) is not None:
        parts.append(f"{rate:,.0f} tokens/s")
    if values.get("skipped"):
        parts.append("skipped")
    if seconds_left is not None:
        parts.append(f"{clock_text(seconds_left)} left")
    return "  ".join(parts)


def clock_text(seconds: float) -> str:
    """3723.4 -> 1:02:03"""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"


def other_text(step: int, kind: str, values: dict[str, Any]) -> str:
    """An evaluation or an event as a line."""
    parts = (
        f"{name} {value:.4f}" if isinstance(value, float) else f"{name} {value}"
        for name, value in values.items()
    )
    return f"step {step}  {kind}: {', '.join(parts)}"
