"""Examples as bytes: of a unit while data is prepared, and of a packed row in its shard.

uint32 n, s, m, a    tokens, segments, masks, answers
uint32 [s]           where each segment begins; the first is 0
int32 [a, 2]         each answer's last token and its rank
uint16 or uint32 [n] tokens; uint16 where the vocabulary has at most 65,536
uint8 [m, n / 8]     masks, a bit a token, the first in the highest bit
"""

import numpy as np

from train.data.examples.example import Example
from train.data.row import token_dtype

_NUMBER = np.dtype("<u4")
_HEADER_BYTES = 4 * _NUMBER.itemsize


def encode_example(example: Example, *, vocab_size: int) -> bytes:
    """The record of an example or of a row of them."""
    parts = (example.tokens, example.starts, example.masks, example.answers)
    return b"".join(
        (
            np.array([len(part) for part in parts], _NUMBER).tobytes(),
            example.starts.astype(_NUMBER).tobytes(),
            example.answers.astype("<i4").tobytes(),
            example.tokens.astype(token_dtype(vocab_size)).tobytes(),
            np.packbits(example.masks, axis=1).tobytes(),
        )
    )


def decode_example(record: bytes, *, vocab_size: int) -> Example:
    """The example of a record. Raises `ValueError`, saying what is wrong, if it is none."""
    if len(record) < _HEADER_BYTES:
        raise ValueError(f"{len(record)} bytes are too few")
    n, num_starts, num_masks, num_answers = (int(x) for x in np.frombuffer(record, _NUMBER, 4))
    dtype, mask_bytes = token_dtype(vocab_size), -(-n // 8)
    answers_at = _HEADER_BYTES + num_starts * _NUMBER.itemsize
    tokens_at = answers_at + num_answers * 8
    masks_at = tokens_at + n * dtype.itemsize
    if len(record) != masks_at + num_masks * mask_bytes:
        raise ValueError(f"{len(record)} bytes do not hold {n} tokens with {num_masks} masks")
    starts = np.frombuffer(record, _NUMBER, num_starts, _HEADER_BYTES).astype(np.int64)
    if not num_starts or starts[0] or np.any(np.diff(starts) < 1) or starts[-1] >= n:
        raise ValueError("segments do not begin in order")
    answers = np.frombuffer(record, "<i4", 2 * num_answers, answers_at).reshape(-1, 2)
    ends = answers[:, 0]
    if np.any(np.diff(ends) < 1) or np.any(ends < 0) or np.any(ends >= n):
        raise ValueError("answers do not end in order")
    tokens = np.frombuffer(record, dtype, n, tokens_at)
    if tokens.max() >= vocab_size:
        raise ValueError(f"token id {tokens.max()} is outside the vocabulary of {vocab_size}")
    bits = np.frombuffer(record, np.uint8, num_masks * mask_bytes, masks_at)
    masks = np.unpackbits(bits.reshape(num_masks, mask_bytes), axis=1, count=n).astype(bool)
    return Example(tokens, starts, masks, answers.astype(np.int64))
