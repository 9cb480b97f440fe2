"""What a selection kept and left out, as text."""

from array import array
from collections import Counter

import numpy as np

from train.selection.quota_file import QuotaFile

_BARS, _BAR_WIDTH = 10, 40


def score_histogram(scores: array) -> list[str]:
    """Lines, a bar each, of equal widths from the lowest score to the highest; of few different
    scores, such as a verifier's 0 and 1, a bar each."""
    if not scores:
        return ["no scores"]
    values = np.asarray(scores)
    different, counts = np.unique(values, return_counts=True)
    labels = [f"{value:g}" for value in different]
    if len(different) > _BARS:
        counts, edges = np.histogram(values, bins=_BARS)
        labels = [f"{low:.3g} to {high:.3g}" for low, high in zip(edges, edges[1:], strict=False)]
    width = max(map(len, labels))
    return [
        f"{label:>{width}}  {'#' * -(-_BAR_WIDTH * int(count) // int(counts.max()))} {count:,}"
        for label, count in zip(labels, counts, strict=True)
    ]


def file_summary(name: str, file: QuotaFile, dropped: Counter) -> list[str]:
    """Lines about one output: how many rows, of which categories, and why others are not there."""
    lines = [f"{file.path}: {file.kept.total():,} rows of {name}"]
    if set(file.kept) - {None}:
        lines += [
            f"  {count:>9,}  {category or 'no category'}" for category, count in _sorted(file.kept)
        ]
    over = {f"over the quota of {category or '*'}": n for category, n in _sorted(file.over)}
    return lines + dropped_lines(dropped + Counter(over))


def dropped_lines(dropped: Counter) -> list[str]:
    """A line a reason, the most frequent first."""
    return [f"  left out {count:,}: {reason}" for reason, count in _sorted(dropped)]


def _sorted(counts: Counter) -> list[tuple[str | None, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0] or ""))
