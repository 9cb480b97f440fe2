"""The tokens of the whole corpus, read from the finished units at any place."""

import bisect
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from train.data.unit_files import unit_path


class TokenStream:
    """The documents of units 0, 1, 2, ... one after another.

    Memory: what the system maps of one unit's tokens, and the lengths of its documents.
    """

    def __init__(self, folder: str | Path, token_counts: Sequence[int], dtype: np.dtype) -> None:
        """Args:
        folder: where the units are.
        token_counts: tokens of each unit.
        dtype: as the units hold them.
        """
        self._folder, self._dtype = folder, dtype
        self._begins = list(itertools.accumulate(token_counts, initial=0))

    def __len__(self) -> int:
        return self._begins[-1]

    def documents(self, start: int, stop: int) -> Iterator[np.ndarray]:
        """Tokens `start` to `stop - 1`, one array for each document of which some are there; not
        beyond the end."""
        number = bisect.bisect_right(self._begins, start) - 1
        position = start
        while position < stop:
            begin = self._begins[number]
            tokens = np.memmap(unit_path(self._folder, number, "tokens"), self._dtype, "r")
            lengths = np.fromfile(unit_path(self._folder, number, "lengths"), "<u8")
            ends = begin + np.cumsum(lengths.astype(np.int64))
            for end in ends[int(np.searchsorted(ends, position, "right")) :]:
                piece_end = min(int(end), stop)
                if piece_end > position:
                    yield tokens[position - begin : piece_end - begin]
                    position = piece_end
            number = bisect.bisect_right(self._begins, position) - 1
