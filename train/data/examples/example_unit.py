"""A unit of lines as examples: three files, of which the last one written makes it whole.

unit-000012.records  the examples one after another, as example_record.py writes them
unit-000012.sizes    uint64 [examples, 3]: tokens, slots, bytes of the record
unit-000012.json     the counts
"""

import dataclasses
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from llama_jax.errors import InputError
from train.data.corpus_files import CorpusFile
from train.data.examples.example_maker import ExampleMaker
from train.data.examples.example_record import encode_example
from train.data.examples.example_settings import ExampleSettings
from train.data.examples.line_fields import parse_line
from train.data.examples.refused_example import RefusedExample
from train.data.piece_lines import PieceLines
from train.data.unit_files import MAX_COMPLAINTS, UnitFiles, check_complaint, unit_path
from train.data.work_units import Piece, Unit
from train.data.workers import Report

_RECORDS_BETWEEN_REPORTS = 100
_SIZE = np.dtype("<u8")


@dataclass(frozen=True)
class ExampleCounts:
    """Attributes:
    num_examples, num_tokens: written.
    num_targets: tokens that count when they are the target; of pairs, in the likelihood.
    dropped: reason -> how many lines were left out for it.
    complaints: of the first of them.
    """

    num_examples: int
    num_tokens: int
    num_targets: int
    dropped: dict[str, int]
    complaints: tuple[str, ...]


def finished_examples(folder: str | Path, number: int) -> ExampleCounts | None:
    """The counts of a unit that is whole, or None."""
    path = unit_path(folder, number, "json")
    if not path.is_file():
        return None
    fields = json.loads(path.read_text())
    return ExampleCounts(**{**fields, "complaints": tuple(fields["complaints"])})


def read_sizes(folder: str | Path, number: int) -> np.ndarray:
    """Tokens, slots and bytes of a unit's examples, [examples, 3]."""
    return np.fromfile(unit_path(folder, number, "sizes"), _SIZE).astype(np.int64).reshape(-1, 3)


def add_example_counts(units: Sequence[ExampleCounts]) -> ExampleCounts:
    """The counts of several units together, with the first complaints."""
    dropped = sum((Counter(unit.dropped) for unit in units), Counter())
    complaints = tuple(complaint for unit in units for complaint in unit.complaints)
    return ExampleCounts(
        num_examples=sum(unit.num_examples for unit in units),
        num_tokens=sum(unit.num_tokens for unit in units),
        num_targets=sum(unit.num_targets for unit in units),
        dropped=dict(sorted(dropped.items())),
        complaints=complaints[:MAX_COMPLAINTS],
    )


def check_is_jsonl(file: CorpusFile) -> None:
    """Raises `InputError` for a file that has no lines of JSON."""
    if file.kind != "jsonl":
        raise InputError(
            f"{file.path}: dialogs and preferences are read from .jsonl (or .json, an object a "
            "line), each also with .gz or .zst"
        )


class ExampleUnitMaker:
    """Makes units; each worker process has one."""

    def __init__(self, folder: str, settings: ExampleSettings, on_error: str) -> None:
        """Args:
        folder: where units are written.
        settings: of the examples.
        on_error: for a line that makes no example: `stop` or `skip`.
        """
        self._folder, self._on_error = folder, on_error
        self._maker = ExampleMaker(settings)

    def __call__(self, item: tuple[int, Unit], report: Report) -> tuple[int, ExampleCounts]:
        """Writes unit `item[0]` out of the pieces `item[1]`; its number and counts.

        Raises `InputError` for a line that makes no example, unless they are to be skipped.
        """
        number, unit = item
        work = _UnitWork(report)
        files = UnitFiles(self._folder, number)
        with files.written("records") as file:
            for piece in unit:
                for record in self._records(piece, work):
                    file.write(record)
        work.report_now()
        with files.written("sizes") as file:
            file.write(np.array(work.sizes, _SIZE).tobytes())
        with files.written("json") as file:
            file.write(json.dumps(dataclasses.asdict(work.counts())).encode())
        files.publish()
        return number, work.counts()

    def _records(self, piece: Piece, work: "_UnitWork"):
        lines = PieceLines(piece)
        for line in lines:
            try:
                example = self._maker(parse_line(line.text))
            except RefusedExample as error:
                complaint = f"{lines.place(line)}: {error}"
                check_complaint(complaint, on_error=self._on_error)
                work.add_dropped(error.reason, complaint)
            else:
                record = encode_example(example, vocab_size=self._maker.vocab_size)
                num_targets = int(example.masks[-1:].sum())
                work.add((len(example.tokens), example.num_slots, len(record)), num_targets)
                yield record
            work.report(line.num_bytes)


class _UnitWork:
    """What a unit has come to so far, told to the progress bar now and then."""

    def __init__(self, report: Report) -> None:
        self.sizes: list[tuple[int, int, int]] = []
        self._num_targets = 0
        self._dropped: Counter[str] = Counter()
        self._complaints: list[str] = []
        self._report = report
        self._num_bytes = self._num_lines = self._num_tokens = 0

    def add(self, size: tuple[int, int, int], num_targets: int) -> None:
        self.sizes.append(size)
        self._num_targets += num_targets
        self._num_tokens += size[0]

    def add_dropped(self, reason: str, complaint: str) -> None:
        self._dropped[reason] += 1
        self._complaints = [*self._complaints, complaint][:MAX_COMPLAINTS]

    def report(self, num_bytes: int) -> None:
        self._num_bytes += num_bytes
        self._num_lines += 1
        if self._num_lines >= _RECORDS_BETWEEN_REPORTS or self._num_bytes >= 1 << 20:
            self.report_now()

    def report_now(self) -> None:
        self._report(self._num_bytes, self._num_lines, self._num_tokens)
        self._num_bytes = self._num_lines = self._num_tokens = 0

    def counts(self) -> ExampleCounts:
        return ExampleCounts(
            num_examples=len(self.sizes),
            num_tokens=sum(size[0] for size in self.sizes),
            num_targets=self._num_targets,
            dropped=dict(self._dropped),
            complaints=tuple(self._complaints),
        )
