"""Counts of the words of any amount of text in bounded memory.

As long as the distinct words fit, every word is counted. When they do not, the counts become those
of a random half of the text: each count c turns into a draw from Binomial(c, 1/2), words that draw
0 are forgotten, and of all text from there on each word is counted with probability 1/2; then 1/4,
and so on. At any time the table is what a uniform sample of all the text so far would have given.
So frequent words keep their shares, and rare ones, which are most of what a language written
without spaces has, are represented by as many of them as there is room for.

Reference: P. Gibbons and Y. Matias, New sampling-based summary statistics for improving approximate
query answers, SIGMOD 1998 (concise samples).
"""

from collections import Counter
from collections.abc import Mapping

import numpy as np

from llama_jax.tokenizers.training.words import count_words


class WordCounts:
    """Attributes:
    counts: word -> how often it is in the sample.
    rate: the share of the text that the sample is: 1, 1/2, 1/4, ...
    num_characters: of all the text.
    """

    def __init__(self, *, max_characters: int, seed: int) -> None:
        """Args:
        max_characters: most characters that the distinct words have together.
        seed: of the sample.
        """
        self.counts: Counter[str] = Counter()
        self.rate = 1.0
        self.num_characters = 0
        self._distinct_characters = 0
        self._max_characters = max_characters
        self._random = np.random.default_rng(seed)

    def add(self, text: str) -> None:
        """Counts the words of `text`, which begins and ends where words do."""
        self.num_characters += len(text)
        found = count_words(text)
        if self.rate < 1:
            found = self._sample(found, self.rate)
        self._distinct_characters += sum(map(len, found.keys() - self.counts.keys()))
        self.counts.update(found)
        while self._distinct_characters > self._max_characters:
            self.rate /= 2
            self.counts = self._sample(self.counts, 0.5)
            self._distinct_characters = sum(map(len, self.counts))

    def _sample(self, counts: Mapping[str, int], rate: float) -> Counter[str]:
        drawn = self._random.binomial(np.fromiter(counts.values(), np.int64, len(counts)), rate)
        return Counter(
            {word: count for word, count in zip(counts, drawn.tolist(), strict=True) if count}
        )
