"""Dividing a corpus into units of work, small enough to lose one and large enough to be few.

The division is for the workers and for continuing after an interruption; the tokens come out in the
order of the documents, so it never shows in the result.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from llama_jax.errors import InputError
from train.data.corpus_files import CorpusFile

MIN_UNIT_BYTES = 4 << 20
MAX_UNIT_BYTES = 128 << 20
_WANTED_UNITS = 1000


class Piece(NamedTuple):
    """A part of a file: bytes (JSONL; the lines that begin there) or row groups (Parquet) from
    `start` to before `stop`; the whole file if `stop` is None."""

    file: CorpusFile
    start: int
    stop: int | None
    num_bytes: int


# What one worker does at once: pieces in the order of their documents.
Unit = tuple[Piece, ...]


def plan_units(files: Sequence[CorpusFile]) -> list[Unit]:
    """Units of a corpus, in the order of their documents."""
    total = sum(file.num_bytes for file in files)
    unit_bytes = min(max(total // _WANTED_UNITS, MIN_UNIT_BYTES), MAX_UNIT_BYTES)
    units: list[Unit] = []
    pieces: list[Piece] = []
    num_bytes = 0
    for file in files:
        for piece in _pieces(file, unit_bytes):
            pieces.append(piece)
            num_bytes += piece.num_bytes
            if num_bytes >= unit_bytes:
                units.append(tuple(pieces))
                pieces, num_bytes = [], 0
    if pieces:
        units.append(tuple(pieces))
    return units


def _pieces(file: CorpusFile, unit_bytes: int) -> Iterator[Piece]:
    if file.kind == "parquet":
        num_groups = parquet_file(file.path).metadata.num_row_groups
        for group in range(num_groups):
            yield Piece(file, group, group + 1, file.num_bytes // num_groups)
    elif file.kind == "jsonl" and not file.compression:
        for start in range(0, file.num_bytes, unit_bytes):
            stop = min(start + unit_bytes, file.num_bytes)
            yield Piece(file, start, stop, stop - start)
    else:
        yield Piece(file, 0, None, file.num_bytes)


def parquet_file(path: str):
    """The open file. Raises `InputError` if it is no Parquet."""
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.ParquetFile(path, page_checksum_verification=True)
    except pyarrow.ArrowException as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{path}: is no readable Parquet file ({reason}); fetch it again"
        ) from error
