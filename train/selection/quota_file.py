"""A JSONL file that appears at the end, whole, with no more rows of a category than its quota.

Which rows a quota leaves is known when all have come: those with the smallest draws, so every row
of a category is as likely as any other. Until then all lie in a temporary file beside the output;
of each 24 bytes are held.
"""

import json
from array import array
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llama_jax.whole_file import publish, temporary_name, whole_file, written


class QuotaFile:
    """A context; what it has taken is published by `finish`, and gone if that was not reached.

    Attributes:
      kept: rows in the output by category, once finished.
      over: rows that were left out by category.
    """

    def __init__(self, path: Path, quota: Callable[[str | None], int | None]):
        self.path = path
        self.kept: Counter = Counter()
        self.over: Counter = Counter()
        self._quota = quota
        self._temporary = temporary_name(path)
        self._written = written(self._temporary, path)
        self._categories: dict[str | None, int] = {}
        self._category, self._draw, self._length = array("L"), array("Q"), array("L")

    def __enter__(self) -> "QuotaFile":
        self._file = self._written.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        try:
            self._written.__exit__(*exception)
        finally:
            self._temporary.unlink(missing_ok=True)

    def add(self, fields: dict[str, Any], *, category: str | None, draw: int) -> None:
        """Takes a row, in the order of the output. `draw` is below 2^64."""
        line = json.dumps(fields, ensure_ascii=False).encode() + b"\n"
        self._file.write(line)
        self._category.append(self._categories.setdefault(category, len(self._categories)))
        self._draw.append(draw)
        self._length.append(len(line))

    def finish(self) -> None:
        """Writes the output. Several files finish one after another, each whole."""
        is_over = self._over_quota()
        names = list(self._categories)
        for number, is_left_out in zip(self._category, is_over, strict=True):
            (self.over if is_left_out else self.kept)[names[number]] += 1
        self._file.flush()
        if any(is_over):
            self._keep_only(is_over)
        else:
            publish(self._temporary, self.path)

    def _over_quota(self) -> bytearray:
        """1 for each row that is left out."""
        rows: dict[int, list[int]] = {}
        for row, number in enumerate(self._category):
            rows.setdefault(number, []).append(row)
        is_over = bytearray(len(self._category))
        for category, number in self._categories.items():
            most = self._quota(category)
            if most is not None:
                by_draw = sorted(rows[number], key=lambda row: (self._draw[row], row))
                for row in by_draw[most:]:
                    is_over[row] = 1
        return is_over

    def _keep_only(self, is_over: bytearray) -> None:
        self._file.seek(0)
        with whole_file(self.path) as file:
            for length, is_left_out in zip(self._length, is_over, strict=True):
                line = self._file.read(length)
                if not is_left_out:
                    file.write(line)
