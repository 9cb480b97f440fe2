"""The texts of a corpus file, one document after another, and the records that hold none.

Memory: one document (and for Parquet a thousand). A file that is damaged as a whole, such as a .gz
that ends early, is always an error: what was cut off is not known. A damaged record within a whole
file is told to the caller, who stops or leaves it out.
"""

import gzip
import io
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, NamedTuple

from llama_jax.errors import InputError
from train.data.work_units import Piece, parquet_file
from train.data.zstd_file import ZstdFile

_PARQUET_BATCH_ROWS = 1000


class Record(NamedTuple):
    """Attributes:
    text: of the document, or None if the record is damaged.
    complaint: where it is and what is wrong with it, or "".
    num_bytes: of the file, read since the record before.
    """

    text: str | None
    complaint: str
    num_bytes: int


def read_documents(piece: Piece, *, text_field: str) -> Iterator[Record]:
    """The records of a piece. `text_field` is the JSON field or the Parquet column.

    Raises `InputError` if the file is damaged as a whole.
    """
    if piece.file.kind == "parquet":
        return _parquet(piece, text_field)
    if piece.file.kind == "jsonl":
        return _jsonl(piece, text_field)
    return _text(piece)


def _text(piece: Piece) -> Iterator[Record]:
    with open(piece.file.path, "rb") as raw:
        content = b"".join(_chunks(raw, piece))
    try:
        yield Record(content.decode("utf-8-sig"), "", piece.num_bytes)
    except UnicodeDecodeError as error:
        yield Record(None, f"{piece.file.path}: not UTF-8 text ({error})", piece.num_bytes)


def _chunks(raw: BinaryIO, piece: Piece) -> Iterator[bytes]:
    with _damage_named(piece):
        file = _decompressed(raw, piece)
        while chunk := file.read(1 << 20):
            yield chunk


def _jsonl(piece: Piece, text_field: str) -> Iterator[Record]:
    path = piece.file.path
    lines_before: int | None = None
    with open(path, "rb") as raw:
        for number, (line, num_bytes) in enumerate(_lines(raw, piece), 1):
            if not line.strip():
                continue
            try:
                yield Record(_text_of_line(line, text_field), "", num_bytes)
            except ValueError as error:
                if lines_before is None:
                    lines_before = _count_lines(path, piece.start)
                yield Record(None, f"{path}: line {lines_before + number}: {error}", num_bytes)


def _lines(raw: BinaryIO, piece: Piece) -> Iterator[tuple[bytes, int]]:
    """The lines that begin in the piece, and how many bytes of the file each took."""
    if piece.stop is not None:
        begin = piece.start
        if begin:
            raw.seek(begin - 1)
            begin += len(raw.readline()) - 1  # the line that began before
        while begin < piece.stop and (line := raw.readline()):
            begin += len(line)
            yield (line.removeprefix(b"\xef\xbb\xbf") if begin == len(line) else line), len(line)
        return
    begin, is_first = 0, True
    with _damage_named(piece):
        file = io.BufferedReader(_decompressed(raw, piece), 1 << 20)
        while line := file.readline():
            position = raw.tell()
            yield (line.removeprefix(b"\xef\xbb\xbf") if is_first else line), position - begin
            begin, is_first = position, False


def _text_of_line(line: bytes, text_field: str) -> str:
    """Raises `ValueError` with what is wrong."""
    try:
        fields = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 text ({error})") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not valid JSON ({error})") from None
    if not isinstance(fields, dict):
        raise ValueError(f"a JSON object must be here, not {_shown(fields)}")
    if text_field not in fields:
        has = ", ".join(map(str, list(fields)[:8])) or "none"
        raise ValueError(f"no field {text_field!r} (it has {has}); name it with --text-field")
    return _checked_text(fields[text_field], text_field)


def _checked_text(text: Any, text_field: str) -> str:
    if not isinstance(text, str):
        raise ValueError(f"{text_field!r} must be a text, not {_shown(text)}")
    return text


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _count_lines(path: str, num_bytes: int) -> int:
    """Lines that begin before byte `num_bytes`, and not at it."""
    count, last = 0, b""
    with open(path, "rb") as file:
        while num_bytes and (chunk := file.read(min(num_bytes, 1 << 20))):
            count += chunk.count(b"\n")
            num_bytes -= len(chunk)
            last = chunk
    return count + (last[-1:] not in (b"", b"\n"))


def _parquet(piece: Piece, text_field: str) -> Iterator[Record]:
    import pyarrow

    path = piece.file.path
    file = parquet_file(path)
    if text_field not in file.schema_arrow.names:
        has = ", ".join(file.schema_arrow.names[:8])
        raise InputError(f"{path}: no column {text_field!r} (it has {has}); give --text-field")
    groups = range(piece.start, piece.stop)
    number = sum(file.metadata.row_group(group).num_rows for group in range(piece.start))
    num_rows = sum(file.metadata.row_group(group).num_rows for group in groups)
    num_bytes = piece.num_bytes // max(num_rows, 1)
    batches = file.iter_batches(_PARQUET_BATCH_ROWS, row_groups=list(groups), columns=[text_field])
    try:
        for batch in batches:
            for value in batch.column(0):
                number += 1
                try:
                    yield Record(_checked_text(value.as_py(), text_field), "", num_bytes)
                except ValueError as error:  # UnicodeDecodeError is one
                    yield Record(None, f"{path}: row {number}: {error}", num_bytes)
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{path}: damaged after row {number} ({reason}); fetch it again"
        ) from error


def _decompressed(raw: BinaryIO, piece: Piece) -> Any:
    if piece.file.compression and not piece.file.num_bytes:
        raise EOFError("the file is empty")  # gzip would take it for an empty text
    if piece.file.compression == "gz":
        return gzip.GzipFile(fileobj=raw)
    return ZstdFile(raw) if piece.file.compression == "zst" else raw


@contextmanager
def _damage_named(piece: Piece) -> Iterator[None]:
    """Turns what decompressors raise into an `InputError` that names the file."""
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(
            f"{piece.file.path}: damaged or cut off ({error}); fetch it again"
        ) from error
