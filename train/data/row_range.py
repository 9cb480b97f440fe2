"""Rows in a stretch of a data set, followed by empty ones that fill up the last batch."""

from collections.abc import Mapping

import numpy as np

from train.data.loader import BatchRow
from train.data.packed_rows import PackedRows


class RowRange:
    """Rows `first` to before `stop` of a prepared folder, numbered from 0; a `Loader` reads them
    like a mixture. What comes after them is empty and counts nothing.

    Attributes:
      row_length: tokens that a row predicts.
    """

    def __init__(self, rows: PackedRows, first: int, stop: int) -> None:
        self._rows, self._first, self._stop = rows, first, stop
        self.row_length = rows.manifest.row_length

    def __getitem__(self, index: int) -> BatchRow:
        number = self._first + index
        return self._rows[number] if number < self._stop else _EmptyRow(self._rows[self._first])


class _EmptyRow:
    """A row like another, with zeros in all its arrays: no segment, no target, answers that are
    equal."""

    def __init__(self, like: BatchRow) -> None:
        self._like = like

    def arrays(self) -> Mapping[str, np.ndarray]:
        return {name: np.zeros_like(values) for name, values in self._like.arrays().items()}
