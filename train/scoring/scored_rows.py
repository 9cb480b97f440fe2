"""Rows of a file with the scores of their texts, in the order of the file."""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from llama_jax.checkpoints.transfer_progress import transfer_progress
from train.scoring.kept_scores import KeptScores

# Rows that are held, whose texts are sorted by length together.
_WINDOW_ROWS = 512


class ReadRow(NamedTuple):
    """Attributes:
    row: what is to come back with the scores.
    texts: integer ids `[n]` each.
    num_bytes: of the file.
    """

    row: Any
    texts: list[np.ndarray]
    num_bytes: int


def scored_rows(
    scorer: KeptScores, rows: Iterator[ReadRow], path: Path, *, quiet: bool
) -> Iterator[tuple[Any, list[float]]]:
    """Each row with a score for each of its texts, and progress through the file at `path`."""
    size = path.stat().st_size if path.is_file() else 0
    with transfer_progress(path.name, size, quiet=quiet) as advance:
        while window := list(itertools.islice(rows, _WINDOW_ROWS)):
            scores = iter(scorer([text for read in window for text in read.texts]))
            for read in window:
                yield read.row, [next(scores) for _ in read.texts]
                advance(read.num_bytes)


def write_line(file: BinaryIO, fields: dict[str, Any]) -> None:
    """One JSON object."""
    file.write(json.dumps(fields, ensure_ascii=False).encode() + b"\n")
