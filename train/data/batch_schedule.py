"""How many rows each step of a stage has: a batch that grows with the tokens seen.

A step of R rows sees R * row_length tokens; the schedule asks before each step how many tokens the
stage has seen. Between two changes all steps are alike, so everything is arithmetic over the few
changes, never a walk over the steps (arXiv 2407.21783, section 3.4.1, has three of them).
"""

from collections.abc import Iterator
from typing import NamedTuple

from llama_jax.errors import InputError
from train.config import BatchStep


class _Run(NamedTuple):
    """Steps in a row that are alike, from `first_step` to the next run's."""

    first_step: int
    first_row: int
    rows: int
    micro_batches: int


class BatchSchedule:
    """The steps of a stage, numbered from 0, and the rows of its sequence that each one has."""

    def __init__(self, batch: tuple[BatchStep, ...], *, row_length: int) -> None:
        """Args:
          batch: rows and micro-batches of a step from so many tokens on; the first from 0 tokens.
          row_length: tokens that a row predicts.

        Raises `InputError` if they do not begin at 0, do not ascend, are not positive, or if rows
        do not divide into the micro-batches.
        """
        if row_length < 1:
            raise InputError(f"row_length must be at least 1, not {row_length}")
        if not batch or batch[0].after_tokens != 0:
            raise InputError("batch: the first entry must have after_tokens 0")
        for earlier, later in zip(batch, batch[1:], strict=False):
            if later.after_tokens <= earlier.after_tokens:
                raise InputError(
                    f"batch: after_tokens must ascend, and {later.after_tokens} follows "
                    f"{earlier.after_tokens}"
                )
        for entry in batch:
            if entry.rows < 1:
                raise InputError(f"batch: rows must be at least 1, not {entry.rows}")
            if entry.micro_batches < 1 or entry.rows % entry.micro_batches:
                raise InputError(
                    f"batch: {entry.rows} rows do not divide into {entry.micro_batches} "
                    "micro-batches"
                )
        self.row_length = row_length
        self.batch = batch
        self._runs = tuple(self._find_runs(batch))

    def rows_in(self, step: int) -> int:
        """Rows of step `step`."""
        return self._run_of(step).rows

    def micro_batches_in(self, step: int) -> int:
        """Into how many parts the rows of step `step` are split."""
        return self._run_of(step).micro_batches

    def rows_before(self, step: int) -> int:
        """Rows of all steps before `step`: the number of its first row in the stage's sequence."""
        run = self._run_of(step)
        return run.first_row + (step - run.first_step) * run.rows

    def steps_for(self, num_tokens: int) -> int:
        """The least number of steps that together have `num_tokens` tokens or more."""
        num_rows = -(-max(num_tokens, 0) // self.row_length)
        run = max(
            (run for run in self._runs if run.first_row <= num_rows), key=lambda r: r.first_row
        )
        return run.first_step + -(-(num_rows - run.first_row) // run.rows)

    def _find_runs(self, batch: tuple[BatchStep, ...]) -> Iterator[_Run]:
        run = _Run(0, 0, batch[0].rows, batch[0].micro_batches)
        for entry in batch[1:]:
            # The change comes at the first step that has seen so many tokens, which means rows.
            missing = -(-entry.after_tokens // self.row_length) - run.first_row
            num_steps = max(-(-missing // run.rows), 0)
            if num_steps:  # otherwise one step went past the beginning of two entries
                yield run
            run = _Run(
                run.first_step + num_steps,
                run.first_row + num_steps * run.rows,
                entry.rows,
                entry.micro_batches,
            )
        yield run

    def _run_of(self, step: int) -> _Run:
        if step < 0:
            raise ValueError(f"step {step} is before the first")
        return max(
            (run for run in self._runs if run.first_step <= step), key=lambda r: r.first_step
        )
