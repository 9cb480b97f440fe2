"""Shares of languages by temperature."""

import math

import pytest

from llama_jax.tokenizers.training.language_weights import language_shares, weighted_counts
from llama_jax.tokenizers.training.word_counts import WordCounts

CHARACTERS = {"en": 900, "th": 100}


@pytest.mark.parametrize("temperature, share", [(1, 0.1), (2, 10 / (30 + 10)), (math.inf, 0.5)])
def test_shares(temperature, share):
    shares = language_shares(CHARACTERS, temperature=temperature)
    assert shares["th"] == pytest.approx(share)
    assert sum(shares.values()) == pytest.approx(1)


def test_counts_come_to_the_shares_and_no_word_is_lost():
    languages = {"en": WordCounts(max_characters=10**6, seed=0)}
    languages["th"] = WordCounts(max_characters=10**6, seed=0)
    languages["en"].add("the cat " * 1000 + "once")
    languages["th"].add("แมว " * 20)
    shares = language_shares(
        {name: words.num_characters for name, words in languages.items()}, temperature=2
    )
    total = weighted_counts(languages, shares=shares)
    assert total["once"] + total[" once"] > 0
    characters = {
        name: sum(len(word) * total[word] for word in words.counts)
        for name, words in languages.items()
    }
    # Within 1%: counts are integers.
    share = characters["th"] / sum(characters.values())
    assert share == pytest.approx(shares["th"], rel=0.01)
