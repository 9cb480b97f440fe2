"""A row: the tokens that one sequence of a batch predicts, and which document each belongs to.

On disk a row is a record of little-endian numbers, which names the documents' beginnings instead of
a segment id for each token:

    uint32 n             tokens of the row; fewer than T + 1 only in the last row of a data set
    uint32 d             documents of which some token is in the row
    uint32 [d]           index of each one's first token in the row; the first is 0
    uint16 or uint32 [n] tokens; uint16 where the vocabulary has at most 65,536

ArrayRecord compresses each record with zstd and keeps a hash of it.
"""

from typing import NamedTuple

import numpy as np

from train.data.packing import PackedTokens

_HEADER = np.dtype("<u4")


class Row(NamedTuple):
    """T tokens to predict and the one before them.

    Attributes:
      tokens: int32 [T + 1]; 0 where there is padding.
      segment_ids: int32 [T + 1]; 1, 2, ... for the documents of the row, 0 for padding.
    """

    tokens: np.ndarray
    segment_ids: np.ndarray

    def arrays(self) -> dict[str, np.ndarray]:
        """What a batch has of it, `[T]` each: `tokens`, `targets`, `segment_ids` int32 and
        `loss_mask` bool. A target counts if it is in the document of its input. Of rows that are
        stacked, `[..., T + 1]`, it is `[..., T]`."""
        here, there = self.segment_ids[..., :-1], self.segment_ids[..., 1:]
        return {
            "tokens": self.tokens[..., :-1],
            "targets": self.tokens[..., 1:],
            "segment_ids": here,
            "loss_mask": (here == there) & (here != 0),
        }


def token_dtype(vocab_size: int) -> np.dtype:
    """The smaller of uint16 and uint32 that holds the ids of a vocabulary."""
    return np.dtype("<u2") if vocab_size <= 1 << 16 else np.dtype("<u4")


def encode_row(row: PackedTokens, *, vocab_size: int) -> bytes:
    """The record of a row."""
    header = np.array([len(row.tokens), len(row.starts)], _HEADER)
    tokens = row.tokens.astype(token_dtype(vocab_size))
    return header.tobytes() + row.starts.astype(_HEADER).tobytes() + tokens.tobytes()


def decode_row(record: bytes, *, vocab_size: int, row_length: int) -> Row:
    """The row of a record. Raises `ValueError`, saying what is wrong, if it is none."""
    header_bytes = 2 * _HEADER.itemsize
    if len(record) < header_bytes:
        raise ValueError(f"{len(record)} bytes are too few")
    num_tokens, num_starts = (int(n) for n in np.frombuffer(record, _HEADER, 2))
    dtype = token_dtype(vocab_size)
    tokens_at = header_bytes + num_starts * _HEADER.itemsize
    if len(record) != tokens_at + num_tokens * dtype.itemsize:
        raise ValueError(f"{len(record)} bytes do not hold {num_tokens} tokens")
    if not 2 <= num_tokens <= row_length + 1:
        raise ValueError(f"{num_tokens} tokens where 2 to {row_length + 1} must be")
    starts = np.frombuffer(record, _HEADER, num_starts, header_bytes).astype(np.int64)
    if not num_starts or starts[0] or np.any(np.diff(starts) < 1) or starts[-1] >= num_tokens:
        raise ValueError("documents do not begin in order")
    ids = np.frombuffer(record, dtype, num_tokens, tokens_at)
    if ids.max() >= vocab_size:
        raise ValueError(f"token id {ids.max()} is outside the vocabulary of {vocab_size}")
    tokens, segment_ids = np.zeros((2, row_length + 1), np.int32)
    tokens[:num_tokens] = ids
    segment_ids[starts] = 1
    np.cumsum(segment_ids[:num_tokens], out=segment_ids[:num_tokens])
    return Row(tokens, segment_ids)
