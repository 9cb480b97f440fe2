"""The files of a unit of work: several, of which the last one written makes it whole.

Units of text (tokenized_unit.py) and of examples (examples/example_unit.py) differ in what is in
the files, not in how they are made, found again and gone on with.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO, Protocol, TypeVar

from llama_jax.errors import InputError
from llama_jax.whole_file import publish, temporary_name, written
from train.data.prepare_progress import prepare_progress
from train.data.work_units import Unit
from train.data.workers import Report, run_all

MAX_COMPLAINTS = 10


class Counts(Protocol):
    """Attributes:
    complaints: of the first records that were left out.
    """

    complaints: tuple[str, ...]


AnyCounts = TypeVar("AnyCounts", bound=Counts)


def unit_path(folder: str | Path, number: int, ending: str) -> Path:
    """One of the files of unit `number`."""
    return Path(folder) / f"unit-{number:06d}.{ending}"


class UnitFiles:
    """The files of a unit while it is made; the last one written makes it whole."""

    def __init__(self, folder: str | Path, number: int) -> None:
        self._folder, self._number = folder, number
        self._written: list[tuple[Path, Path]] = []

    def written(self, ending: str) -> AbstractContextManager[BinaryIO]:
        """A file to write, gone again after an error."""
        path = unit_path(self._folder, self._number, ending)
        temporary = temporary_name(path)
        self._written.append((temporary, path))
        return written(temporary, path)

    def publish(self) -> None:
        """Gives the files their names, in the order in which they were written."""
        for temporary, path in self._written:
            publish(temporary, path)


def check_complaint(complaint: str, *, on_error: str) -> None:
    """Raises `InputError` for a damaged record, unless they are to be skipped."""
    if on_error == "stop":
        raise InputError(f"{complaint}; put it right, or leave such records out: --on-error skip")


def make_units(
    make_task: Callable[[], Callable[[tuple[int, Unit], Report], tuple[int, AnyCounts]]],
    units: Sequence[Unit],
    finished: Callable[[int], AnyCounts | None],
    *,
    on_error: str,
    workers: int,
    quiet: bool,
) -> list[AnyCounts]:
    """Makes the units that are not finished; the counts of all, in order.

    Args:
      make_task: makes the task of a worker process: (number, unit) to number and counts.
      finished: the counts of a unit that is whole, or None.
      on_error, workers, quiet: see `prepare`.
    """
    counts = {number: finished(number) for number in range(len(units))}
    for unit in counts.values():
        if unit is not None and unit.complaints:  # an earlier run skipped what this one may not
            check_complaint(unit.complaints[0], on_error=on_error)
    missing = [(number, units[number]) for number, unit in counts.items() if unit is None]
    num_bytes = sum(piece.num_bytes for _, unit in missing for piece in unit)
    with prepare_progress("tokenising", num_bytes, quiet=quiet) as report:
        workers = max(min(workers, len(missing)), 1)
        counts |= dict(run_all(make_task, missing, workers=workers, report=report))
    return [counts[number] for number in range(len(units))]
