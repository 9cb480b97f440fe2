"""Shards of packed rows out of the finished units: a window of examples is a shard."""

import bisect
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from train.data.examples.example import joined
from train.data.examples.example_packing import Window, best_fit
from train.data.examples.example_record import decode_example, encode_example
from train.data.examples.example_unit import read_sizes
from train.data.manifest import Shard
from train.data.shard_writer import describe_shard, shard_name, write_records
from train.data.unit_files import unit_path
from train.data.workers import Report

# What the progress bar, which counts bytes, takes a token for.
SHOWN_TOKEN_BYTES = 4


class PackedShard(NamedTuple):
    """Attributes:
    shard: as the manifest has it.
    slots: pairs or answers of its fullest row.
    """

    shard: Shard
    slots: int


@dataclass
class ExamplePacker:
    """Writes shards; each worker process has one. Memory: the examples of a window.

    Attributes:
      units, data: folders of the finished units and of the shards.
      example_counts: examples of each unit.
      room: tokens of examples that a row has room for.
      vocab_size: every token is less.
    """

    units: str
    data: str
    example_counts: list[int]
    room: int
    vocab_size: int

    def __call__(self, item: tuple[int, Window], report: Report) -> PackedShard:
        """Shard number `item[0]` of the examples of a window."""
        number, window = item
        sizes = np.concatenate([sizes for _, sizes in self._parts(window)])
        rows = best_fit(sizes[:, 0].tolist(), room=self.room)
        path = Path(self.data) / shard_name(number)
        if path.is_file():
            shard = describe_shard(path, len(rows))
        else:
            shard = write_records(path, self._records(window, rows))
        report(int(sizes[:, 0].sum()) * SHOWN_TOKEN_BYTES, 0, int(sizes[:, 0].sum()))
        return PackedShard(shard, max(int(sizes[row, 1].sum()) for row in rows))

    def _records(self, window: Window, rows: Sequence[Sequence[int]]) -> Iterator[bytes]:
        records = list(self._examples(window))
        for row in rows:
            examples = [decode_example(records[n], vocab_size=self.vocab_size) for n in row]
            yield encode_example(joined(examples), vocab_size=self.vocab_size)

    def _examples(self, window: Window) -> Iterator[bytes]:
        for unit, sizes in self._parts(window):
            ends = np.cumsum(read_sizes(self.units, unit.number)[:, 2])
            with open(unit_path(self.units, unit.number, "records"), "rb") as file:
                file.seek(int(ends[unit.first - 1]) if unit.first else 0)
                for num_bytes in sizes[:, 2].tolist():
                    yield file.read(num_bytes)

    def _parts(self, window: Window) -> Iterator[tuple["_UnitPart", np.ndarray]]:
        """The units of which some examples are in the window, and the sizes of those."""
        begins = list(itertools.accumulate(self.example_counts, initial=0))
        number = bisect.bisect_right(begins, window.first) - 1
        for unit in range(number, len(self.example_counts)):
            first = max(window.first - begins[unit], 0)
            stop = min(window.stop, begins[unit + 1]) - begins[unit]
            if stop <= 0:
                return
            if stop > first:
                yield _UnitPart(unit, first), read_sizes(self.units, unit)[first:stop]


class _UnitPart(NamedTuple):
    """Unit `number`, from its example `first` on."""

    number: int
    first: int
