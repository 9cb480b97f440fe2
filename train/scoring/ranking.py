"""How often a reward model ranks answers as people did, overall and by category."""

from collections import defaultdict
from collections.abc import Mapping
from itertools import combinations

from train.data.examples.preferences import RANKS


class Ranking:
    """Counts comparisons: two answers to one prompt of which one is better."""

    def __init__(self) -> None:
        self._counts: dict[str, list[float]] = defaultdict(lambda: [0, 0, 0.0])

    def add(self, scores: Mapping[str, float], category: str | None) -> None:
        """The scores of the answers to one prompt, by what they are: `edited`, `chosen`,
        `rejected`."""
        best_first = sorted(scores, key=RANKS.__getitem__)
        for better, worse in combinations(best_first, 2):
            margin = scores[better] - scores[worse]
            for name in {"all", category or "all"}:
                count = self._counts[name]
                count[0] += 1
                count[1] += margin > 0
                count[2] += margin

    def lines(self) -> list[str]:
        """The whole first, then each category."""
        names = ["all", *sorted(self._counts.keys() - {"all"})]
        return [
            f"  {right / count:7.1%} of {count:,} comparisons right, margin {margin / count:+.3f}"
            f"  {name}"
            for name in names
            for count, right, margin in [self._counts[name]]
        ]
