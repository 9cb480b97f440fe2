"""Packing examples whole: best fit, the longest first, within windows of the data.

Every example goes into the fullest row that still has room for it, or begins a new one. Looking at
the longest first leaves the short ones to fill the gaps; for dialogs of ordinary lengths nearly
every row comes out full (arXiv 2404.10830 packs so too). A window is so many tokens of examples in
their order, so that memory is bounded, every window is a shard of its own, and the result depends
on the examples alone.
"""

import bisect
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple


class Window(NamedTuple):
    """Examples from `first` to before `stop`, of the whole data set."""

    first: int
    stop: int


def plan_windows(lengths: Iterable[int], *, window_tokens: int) -> Iterator[Window]:
    """Windows of at least `window_tokens` tokens but for the last; `lengths` are those of all
    examples in order, in tokens."""
    first = stop = num_tokens = 0
    for length in lengths:
        stop += 1
        num_tokens += length
        if num_tokens >= window_tokens:
            yield Window(first, stop)
            first, num_tokens = stop, 0
    if stop > first:
        yield Window(first, stop)


def best_fit(lengths: Sequence[int], *, room: int) -> list[list[int]]:
    """Rows of at most `room` tokens: the numbers of the examples in each, ascending; the rows in
    the order of their first example, so that a part of them is a fair sample.

    Every length is at least 1 and at most `room`.
    """
    rows: list[list[int]] = []
    open_rows: list[tuple[int, int]] = []  # (room left, row), ascending
    shortest = min(lengths, default=0)
    for number in sorted(range(len(lengths)), key=lambda number: (-lengths[number], number)):
        place = bisect.bisect_left(open_rows, (lengths[number], 0))
        if place == len(open_rows):
            left, row = room, len(rows)
            rows.append([])
        else:
            left, row = open_rows.pop(place)
        rows[row].append(number)
        left -= lengths[number]
        if left >= shortest:
            bisect.insort(open_rows, (left, row))
    return sorted(sorted(row) for row in rows)
