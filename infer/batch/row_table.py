"""The first pass over the input: a few numbers a row, so that the whole job can be scheduled.

Rows are parsed once here, to check them and to measure them, and again when they come near the
engine; between the two nothing of a row is held but the numbers below, 54 bytes, whatever its
length. While they are joined and sorted it is 170 (measured): 85 MB for 500,000 rows.
"""

import hashlib
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from infer.batch.job_modes import Needs, needs_of
from infer.protocol.answer_fields import MAX_SAMPLES
from llama_jax.batch_files.batch_row import (
    MAX_ROW_BYTES,
    BatchRow,
    RowError,
    parse_batch_row,
    texts_of,
)
from llama_jax.errors import InputError

_COLUMNS = np.dtype(
    [
        ("offset", "i8"),  # of its first byte in the input
        ("line", "i8"),  # from 1
        ("length", "i4"),  # bytes; over MAX_ROW_BYTES only for a row that is too long to be read
        ("crc32", "u4"),
        ("prompt_bytes", "i4"),  # UTF-8 bytes of all texts of the prompt; 0 for a row that fails
        ("max_new_tokens", "i4"),
        ("samples", "i4"),
        ("scores_prompt", "?"),  # whether log-probabilities of the prompt may be asked for
        ("needs", "u1"),  # of its sampling, see `job_modes.py`
        ("same_id_line", "i8"),  # the line of an earlier row with the same custom_id, or 0
        ("prefix", "u8"),  # hash of how the prompt begins
    ]
)
_ROWS_A_PIECE = 1 << 15
_BOM = b"\xef\xbb\xbf"
# Two prompts that agree in so many characters share a few pages of the cache.
_PREFIX_CHARACTERS = 512
_MOST = 2**31 - 1


@dataclass(frozen=True)
class RowTable:
    """What the first pass has found.

    Attributes:
      path: the input.
      sha256: of the whole input, hexadecimal.
      num_bytes: of the input.
      rows: structured array `[rows]`, in the order of the input; blank lines are no rows.
    """

    path: Path
    sha256: str
    num_bytes: int
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def needs(self) -> Needs:
        """What the sampling of all rows together may need."""
        return Needs(int(np.bitwise_or.reduce(self.rows["needs"])))

    def read(self, file: BinaryIO, row: int) -> BatchRow:
        """Row `row` from the input, opened as `file`.

        Raises `RowError` if it cannot be answered, `InputError` if the input has changed.
        """
        numbers = self.rows[row]
        line = int(numbers["line"])
        if numbers["length"] > MAX_ROW_BYTES:
            raise RowError(f"the row is longer than {MAX_ROW_BYTES:,} bytes", f"line-{line}")
        file.seek(int(numbers["offset"]))
        text = file.read(int(numbers["length"]))
        if zlib.crc32(text) != numbers["crc32"]:
            raise InputError(
                f"{self.path}: line {line} has changed since the job was started; put the old file "
                "back, or start another job with another OUTPUT"
            )
        parsed = parse_batch_row(text, line)
        if earlier := int(numbers["same_id_line"]):
            raise RowError(
                f"custom_id: {parsed.custom_id!r} is that of line {earlier} already",
                parsed.custom_id,
            )
        return parsed


def scan_rows(path: Path, *, default_limit: Callable[[BatchRow], int]) -> RowTable:
    """Reads the input once.

    Args:
      default_limit: the most new tokens of a row that does not say.

    Raises `InputError` if there is no row at all. What is wrong with one row is not said here: it
    fails when its turn comes.
    """
    pieces: list[np.ndarray] = []
    ids: list[np.ndarray] = []
    piece, piece_ids, used = _new_piece()
    digest, num_bytes = hashlib.sha256(), 0
    with open(path, "rb") as file:
        for line, offset, length, text in _lines(file, digest):
            if used == _ROWS_A_PIECE:
                pieces.append(piece)
                ids.append(piece_ids)
                piece, piece_ids, used = _new_piece()
            piece_ids[used] = _measure(piece[used : used + 1], text, line, default_limit)
            piece[used]["offset"], piece[used]["line"] = offset, line
            piece[used]["length"], piece[used]["crc32"] = length, zlib.crc32(text)
            used += 1
        num_bytes = file.tell()
    rows = np.concatenate([*pieces, piece[:used]])
    if not len(rows):
        raise InputError(f"{path}: holds no row; write one JSON object a line")
    _mark_same_ids(rows, np.concatenate([*ids, piece_ids[:used]]))
    return RowTable(path, digest.hexdigest(), num_bytes, rows)


def _new_piece() -> tuple[np.ndarray, np.ndarray, int]:
    return np.zeros(_ROWS_A_PIECE, _COLUMNS), np.zeros((_ROWS_A_PIECE, 2), "u8"), 0


def _lines(file: BinaryIO, digest) -> Iterator[tuple[int, int, int, bytes]]:
    """Number, offset, length and bytes of each line that is not blank; of a line over the limit
    only the beginning, with a length over the limit."""
    line = offset = 0
    while text := file.readline(MAX_ROW_BYTES + 1):
        digest.update(text)
        start, line = offset, line + 1
        offset += len(text)
        is_too_long = len(text) > MAX_ROW_BYTES and not text.endswith(b"\n")
        rest = text
        while is_too_long and rest and not rest.endswith(b"\n"):
            rest = file.readline(MAX_ROW_BYTES)
            digest.update(rest)
            offset += len(rest)
        if line == 1 and text.startswith(_BOM):
            text, start = text.removeprefix(_BOM), len(_BOM)
        if is_too_long:
            yield line, start, MAX_ROW_BYTES + 1, text
        elif text.strip():
            text = text.removesuffix(b"\n")
            yield line, start, len(text), text


def _measure(
    numbers: np.ndarray, text: bytes, line: int, default_limit: Callable[[BatchRow], int]
) -> np.ndarray:
    """Fills in the numbers of one row, `[1]`; the hash of its custom_id, uint64 `[2]`."""
    custom_id = f"line-{line}"
    try:
        if len(text) > MAX_ROW_BYTES:
            raise RowError("too long", custom_id)
        row = parse_batch_row(text, line)
    except RowError as error:
        custom_id = error.custom_id
    else:
        custom_id, body = row.custom_id, row.body
        prompt = [body.get("tools"), body.get("messages", body.get("prompt"))]
        ids = prompt[1] if isinstance(prompt[1], list) else ()
        # Four bytes stand for a token, so a prompt that is given in ids counts four for each.
        num_bytes = 4 * sum(type(id) is int for id in ids)
        beginning = ""
        for part in texts_of(prompt):
            num_bytes += len(part.encode(errors="surrogatepass"))
            beginning += part[: _PREFIX_CHARACTERS - len(beginning)]
        limits = (body.get(name) for name in ("max_completion_tokens", "max_tokens"))
        limit = next((limit for limit in limits if type(limit) is int), None)
        samples = body.get("n")
        numbers["prompt_bytes"] = min(num_bytes, _MOST)
        numbers["max_new_tokens"] = _within(default_limit(row) if limit is None else limit)
        # Of a number that is out of range the row fails, and has none.
        is_in_range = type(samples) is int and 1 <= samples <= MAX_SAMPLES
        numbers["samples"] = samples if is_in_range else 1
        numbers["scores_prompt"] = bool(body.get("echo")) or body.get("prompt_logprobs") is not None
        numbers["needs"] = needs_of(body)
        numbers["prefix"] = _hash(beginning or str(ids[:_PREFIX_CHARACTERS]))[0]
    return _hash(custom_id)


def _within(count: int) -> int:
    return min(max(count, 0), _MOST)


def _hash(text: str) -> np.ndarray:
    """128 bits, uint64 `[2]`: two of a million texts agree with a probability under 1e-26."""
    digest = hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=16).digest()
    return np.frombuffer(digest, "u8")


def _mark_same_ids(rows: np.ndarray, ids: np.ndarray) -> None:
    """`same_id_line` of every row but the first of each custom_id."""
    order = np.lexsort((rows["line"], ids[:, 1], ids[:, 0]))
    ids = ids[order]
    is_new = np.ones(len(order), bool)
    is_new[1:] = (ids[1:] != ids[:-1]).any(axis=1)
    # The place, in `order`, of the first row with the same custom_id.
    first = np.maximum.accumulate(np.where(is_new, np.arange(len(order)), 0))
    repeated = ~is_new
    rows["same_id_line"][order[repeated]] = rows["line"][order[first[repeated]]]
