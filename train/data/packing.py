"""Packing: the documents' tokens one after another, cut into rows.

    documents   a b c | d e f g h      row length T = 3
    rows        a b c d,  d e f g,  g h
    starts      0     3,  0,        0

A row has T + 1 tokens, and its last is the next row's first: as input there, as target here. So
every token but the first of all is a target exactly once, no token is lost between rows, and no row
but the last has padding. (arXiv 2407.21783, section 3.2: no attention across documents of a row.)
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np


class PackedTokens(NamedTuple):
    """A row as it is packed, without padding.

    Attributes:
      tokens: integers [n], 2 <= n <= T + 1; n < T + 1 only in the last row.
      starts: int64 [documents], where each document begins in the row; the first is 0.
    """

    tokens: np.ndarray
    starts: np.ndarray


def count_rows(num_tokens: int, *, row_length: int) -> int:
    """How many rows the tokens of all documents together make."""
    return -(-max(num_tokens - 1, 0) // row_length)


def pack(documents: Iterable[np.ndarray], *, row_length: int) -> Iterator[PackedTokens]:
    """Rows of `row_length` targets out of the documents' tokens, integers [tokens] each.

    Memory: one row and one document. What follows token r * row_length does not depend on what came
    before it, so a part of the rows can be packed from that token on.
    """
    parts: list[np.ndarray] = []
    starts: list[int] = []
    filled = 0
    for document in documents:
        begin = 0
        while begin < len(document):
            part = document[begin : begin + row_length + 1 - filled]
            starts.append(filled)
            parts.append(part)
            filled += len(part)
            begin += len(part)
            if filled == row_length + 1:
                yield PackedTokens(np.concatenate(parts), np.array(starts, np.int64))
                parts, starts, filled = [], [], 0
                begin -= 1
    if filled > 1:
        yield PackedTokens(np.concatenate(parts), np.array(starts, np.int64))
