"""What a run measures, as it goes: into JSONL always, into TensorBoard, and onto the terminal.

Only process 0 of a job writes; the others hold an object that does nothing, so that the loop is
the same everywhere.
"""

import time
from pathlib import Path
from typing import Any

import jax

from train.metrics_file import METRICS_FILE, drop_after, encode, number, plain
from train.tensorboard import TensorBoard
from train.terminal import make_terminal


class MetricsLog:
    """The log of one run: use it as a context manager, or call `close`."""

    def __init__(self, run_folder: Path, *, quiet: bool = False, resume_step: int | None = None):
        """Makes `run_folder` if need be.

        Args:
          run_folder: gets `metrics.jsonl` and `tensorboard/`.
          quiet: plain lines on a terminal, too.
          resume_step: steps done at the checkpoint that the run goes on from; what a killed process
            wrote of later steps is dropped, so that no step appears twice. None begins anew and
            drops everything: a run without a checkpoint has nothing behind it.

        Raises:
          InputError: `metrics.jsonl` has a damaged line, which is named.
        """
        self._writes = jax.process_index() == 0
        self._stage = ""
        if not self._writes:
            return
        run_folder = Path(run_folder)
        run_folder.mkdir(parents=True, exist_ok=True)
        path = run_folder / METRICS_FILE
        self.num_dropped = drop_after(path, resume_step)
        self._tensorboard = TensorBoard(run_folder / "tensorboard", resume_step=resume_step)
        self._file = path.open("a", encoding="utf-8")
        self._terminal = make_terminal(quiet=quiet)
        if self.num_dropped:
            lines = f"{self.num_dropped} line{'s' * (self.num_dropped > 1)} of {path}"
            self.say(
                f"dropped {lines}, of steps after the last checkpoint: those steps are done again"
                if resume_step is not None
                else f"dropped {lines}: that run had saved nothing, and begins anew"
            )

    def say(self, text: str) -> None:
        """Tells the user alone: nothing is written."""
        if self._writes:
            self._terminal.say(text)

    def begin_stage(self, name: str, *, first_step: int, num_steps: int) -> None:
        """Lines from now on carry `stage`, and the terminal counts to `first_step + num_steps`.

        Args:
          first_step: steps of the run done when the stage began, also if it is resumed later.
          num_steps: of the whole stage.
        """
        self._stage = name
        if self._writes:
            self._terminal.begin_stage(name, first_step=first_step, num_steps=num_steps)

    def write(self, step: int, kind: str, values: dict[str, Any]) -> None:
        """Writes one line.

        Args:
          step: steps of the run done when the values were taken.
          kind: `train`, `evaluation` or `event`.
          values: numbers (Python's, NumPy's, scalars of JAX) and text by name. The terminal shows
            `loss` (nats a token), `tokens_per_second` and `skipped` of `train`.
        """
        if not self._writes:
            return
        now = time.time()
        values = {name: plain(value) for name, value in values.items()}
        staged = {"stage": self._stage, **values} if self._stage else values
        self._file.write(encode(step, kind, now, staged))
        self._file.flush()
        numbers = {f"{kind}/{name}": number(value) for name, value in values.items()}
        scalars = {tag: value for tag, value in numbers.items() if value is not None}
        if scalars:
            self._tensorboard.write(step, now, scalars)
        self._terminal.show(step, kind, values)

    def close(self) -> None:
        """Closes the files and ends the display."""
        if self._writes:
            self._terminal.close()
            self._tensorboard.close()
            self._file.close()

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(self, *exception) -> None:
        self.close()
