"""All parts of a job to its output: each row once, in the order of the input, at once.

A row that two processes have answered (see `claims.py`) has the same text twice; the first is
taken. What is held of a row is where it lies: 17 bytes.
"""

import os
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from infer.batch.kept_rows import part_files
from infer.batch.part_file import read_part
from llama_jax.whole_file import remove_leftovers, whole_file

_MOST_OPEN = 200  # files; a job that was restarted a thousand times has as many parts
_PLACES = np.dtype([("part", "i4"), ("offset", "i8"), ("length", "i4"), ("is_error", "?")])


@dataclass(frozen=True)
class Totals:
    """Counts of a whole job."""

    rows: int
    failed: int
    prompt_tokens: int
    new_tokens: int


def merge_parts(parts: Path, num_rows: int, output: Path, errors: Path) -> Totals | np.ndarray:
    """Writes `output`, and `errors` if a row failed; nothing if rows are missing. To be called by
    one process at a time.

    Returns:
      the counts, or the rows that are missing, int64 `[missing]`.
    """
    paths = part_files(parts)
    places = np.zeros(num_rows, _PLACES)
    places["part"] = -1
    prompt_tokens = new_tokens = 0
    for number, path in enumerate(paths):
        for kept, _ in read_part(path, num_rows=num_rows):
            if places["part"][kept.row] < 0:
                places[kept.row] = number, kept.offset, kept.length, kept.kind == "error"
                prompt_tokens += kept.prompt_tokens
                new_tokens += kept.new_tokens
    if (places["part"] < 0).any():
        return np.flatnonzero(places["part"] < 0)
    # The output comes last: where it is, the errors are.
    for path, is_error in ((errors, True), (output, False)):
        rows = np.flatnonzero(places["is_error"] == is_error)
        if len(rows) or not is_error:
            _write(path, places[rows], paths)
    failed = int(places["is_error"].sum())
    return Totals(num_rows, failed, prompt_tokens, new_tokens)


def _write(path: Path, places: np.ndarray, parts: list[Path]) -> None:
    remove_leftovers(path)
    opened: OrderedDict[int, int] = OrderedDict()
    try:
        with whole_file(path) as file:
            for part, offset, length, _ in places:
                if part not in opened:
                    if len(opened) == _MOST_OPEN:
                        os.close(opened.popitem(last=False)[1])
                    opened[part] = os.open(parts[part], os.O_RDONLY)
                file.write(os.pread(opened[part], length, offset))
                file.write(b"\n")
    finally:
        for descriptor in opened.values():
            os.close(descriptor)
