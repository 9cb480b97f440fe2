"""A JSONL file, an object at a time, every complaint with the file and the line."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from llama_jax.errors import InputError
from llama_jax.json_file import parse_json

MAX_LINE_BYTES = 1 << 28
"""128 answers with the log-probabilities of their tokens have some 100 MB; memory stays bounded."""

_BOM = b"\xef\xbb\xbf"


class JsonLine(NamedTuple):
    """Attributes:
    number: of the line, from 1.
    fields: the object.
    num_bytes: of the file, this line and the blank ones before it.
    """

    number: int
    fields: dict[str, Any]
    num_bytes: int


def text_lines(path: Path) -> Iterator[tuple[int, bytes, int]]:
    """Number, text and bytes of each line that is not blank. Raises `InputError` if there is no
    such file or a line is too long."""
    if not path.is_file():
        raise InputError(f"{path}: there is no such file")
    with open(path, "rb") as file:
        number = num_bytes = 0
        while line := file.readline(MAX_LINE_BYTES + 1):
            number, num_bytes = number + 1, num_bytes + len(line)
            if len(line) > MAX_LINE_BYTES:
                raise InputError(f"{path}: line {number}: is over {MAX_LINE_BYTES:,} bytes")
            text = (line.removeprefix(_BOM) if number == 1 else line).strip()
            if text:
                yield number, text, num_bytes
                num_bytes = 0


def json_lines(path: Path) -> Iterator[JsonLine]:
    """The objects of a file. Raises `InputError` for a line that is none."""
    for number, text, num_bytes in text_lines(path):
        yield JsonLine(number, parse_json(text, f"{path}: line {number}"), num_bytes)


def refuse_unknown(
    fields: dict[str, Any], known: tuple[str, ...], refuse: Callable[[str], None]
) -> None:
    """Calls `refuse` with what is wrong if a field has another name than those `known`."""
    for name in fields:
        if name not in known:
            refuse(f"{name[:100]}: unknown field; known: {', '.join(known)}")
