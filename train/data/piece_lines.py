"""The lines of a JSONL file, compressed perhaps, or of the piece of one that a worker has.

The files of a batch job are read whole and in order: `llama_jax/batch_files/json_lines.py`.
"""

import io
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from train.data.compressed_file import damage_named, decompressed
from train.data.work_units import Piece


class PieceLine(NamedTuple):
    """Attributes:
    text: the bytes of the line, without a byte order mark.
    number: of the line in its piece, from 1.
    num_bytes: of the file, read since the line before.
    """

    text: bytes
    number: int
    num_bytes: int


class PieceLines:
    """The lines that begin in a piece and are not blank, in order. Memory: one line."""

    def __init__(self, piece: Piece) -> None:
        self._piece = piece
        self._lines_before: int | None = None

    def __iter__(self) -> Iterator[PieceLine]:
        """Raises `InputError` if the file is damaged as a whole."""
        with open(self._piece.file.path, "rb") as raw:
            for number, (text, num_bytes) in enumerate(_lines(raw, self._piece), 1):
                if text.strip():
                    yield PieceLine(text, number, num_bytes)

    def place(self, line: PieceLine) -> str:
        """File and line, for errors. The lines before the piece are counted when first asked."""
        if self._lines_before is None:
            self._lines_before = _count_lines(self._piece.file.path, self._piece.start)
        return f"{self._piece.file.path}: line {self._lines_before + line.number}"


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
    with damage_named(piece.file):
        file = io.BufferedReader(decompressed(raw, piece.file), 1 << 20)
        while line := file.readline():
            position = raw.tell()
            yield (line.removeprefix(b"\xef\xbb\xbf") if is_first else line), position - begin
            begin, is_first = position, False


def _count_lines(path: str, num_bytes: int) -> int:
    """Lines that begin before byte `num_bytes`, and not at it."""
    count, last = 0, b""
    with open(path, "rb") as file:
        while num_bytes and (chunk := file.read(min(num_bytes, 1 << 20))):
            count += chunk.count(b"\n")
            num_bytes -= len(chunk)
            last = chunk
    return count + (last[-1:] not in (b"", b"\n"))
