"""The texts of a corpus file, one document after another, and the records that hold none.

Memory: one document (and for Parquet a thousand). A file that is damaged as a whole, such as a .gz
that ends early, is always an error: what was cut off is not known. A damaged record within a whole
file is told to the caller, who stops or leaves it out.
"""

import json
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

from llama_jax.errors import InputError
from train.data.compressed_file import damage_named, decompressed
from train.data.piece_lines import PieceLines
from train.data.work_units import Piece, parquet_file

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
    with damage_named(piece.file):
        file = decompressed(raw, piece.file)
        while chunk := file.read(1 << 20):
            yield chunk


def _jsonl(piece: Piece, text_field: str) -> Iterator[Record]:
    lines = PieceLines(piece)
    for line in lines:
        try:
            yield Record(_text_of_line(line.text, text_field), "", line.num_bytes)
        except ValueError as error:
            yield Record(None, f"{lines.place(line)}: {error}", line.num_bytes)


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
