"""What one process has finished: a file that only it writes, a line a row, brought to the disk.

    {"row": 7, "tokens": [12, 30], "crc32": "0009af31", "output": {...}}    "error" for a failure

`row` counts from 0 in the order of the input, `tokens` are those of prompt and answer, and the
checksum is of what follows it. A line counts if it is whole: a torn one at the end, which a process
that was killed leaves, is none, nor is what follows the first line that is damaged (after a power
failure; everything before the last sync is sound). Nobody writes into the file of another process,
dead or alive, so a torn line stays alone.
"""

import json
import os
import re
import secrets
import socket
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from llama_jax.errors import InputError
from llama_jax.whole_file import sync_folder

_LINE = re.compile(
    rb'\{"row": (\d{1,18}), "tokens": \[(\d{1,18}), (\d{1,18})\], "crc32": "([0-9a-f]{8})", '
    rb'("(?:output|error)": )'
)


@dataclass(frozen=True)
class FinishedRow:
    """One row's end.

    Attributes:
      row: from 0, in the order of the input.
      kind: whether `text` goes to the output or to the errors.
      text: a JSON object in UTF-8, without the line's end.
      prompt_tokens, new_tokens: how many.
      samples: that `new_tokens` are of; not kept.
    """

    row: int
    kind: Literal["output", "error"]
    text: bytes
    prompt_tokens: int = 0
    new_tokens: int = 0
    samples: int = 1

    @property
    def line(self) -> bytes:
        """The row as it is kept."""
        counted = b'"%s": %s}' % (self.kind.encode(), self.text)
        return b'{"row": %d, "tokens": [%d, %d], "crc32": "%08x", %s\n' % (
            self.row, self.prompt_tokens, self.new_tokens, zlib.crc32(counted), counted
        )  # fmt: skip


@dataclass(frozen=True)
class KeptRow:
    """Where a finished row lies: `length` bytes from `offset` on in a part file are its text."""

    row: int
    kind: Literal["output", "error"]
    offset: int
    length: int
    prompt_tokens: int
    new_tokens: int


class PartWriter:
    """This process's file in the folder `parts`; made with its first row."""

    def __init__(self, parts: Path):
        self._parts = parts
        self._descriptor: int | None = None
        self.path = parts / f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}.jsonl"

    def append(self, rows: Sequence[FinishedRow]) -> None:
        """Keeps `rows`: they are on the disk when this returns. An `OSError` names the file."""
        if not rows:
            return
        try:
            if self._descriptor is None:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
                self._descriptor = os.open(self.path, flags, 0o644)
                sync_folder(self._parts)
            left = memoryview(b"".join(row.line for row in rows))
            while left:
                left = left[os.write(self._descriptor, left) :]
            os.fsync(self._descriptor)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from error

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def read_part(path: Path, *, start: int = 0, num_rows: int) -> Iterator[tuple[KeptRow, int]]:
    """The finished rows from byte `start` on, each with the offset of the line that follows it; no
    text is held. Raises `InputError` for a whole line that is of another job."""
    with open(path, "rb") as file:
        file.seek(start)
        for line in file:
            found = _LINE.match(line)
            if not found or not line.endswith(b"}\n"):
                return
            if zlib.crc32(line[found.start(5) : -1]) != int(found[4], 16):
                return
            row, prompt_tokens, new_tokens = (int(found[group]) for group in (1, 2, 3))
            if row >= num_rows:
                raise InputError(f"{path}: has row {row} of a job of {num_rows}; remove the file")
            kind = "output" if found[5].startswith(b'"output"') else "error"
            offset, length = start + found.end(), len(line) - found.end() - len(b"}\n")
            start += len(line)
            yield KeptRow(row, kind, offset, length, prompt_tokens, new_tokens), start


def json_text(fields: dict[str, Any]) -> bytes:
    """`fields` as one line of UTF-8. Half of a surrogate pair, which UTF-8 cannot hold and a row's
    own words may have, is written as JSON escapes it."""
    try:
        return json.dumps(fields, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return json.dumps(fields).encode()
