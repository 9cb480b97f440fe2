"""Counts of words: SentencePiece's words, and a uniform sample when they are too many."""

import random

import pytest

from llama_jax.tokenizers.training.word_counts import WordCounts
from llama_jax.tokenizers.training.words import MAX_WORD_CHARACTERS, count_words


def test_what_a_word_is():
    assert count_words("a  b\tc \n d\x00e▁f▅g\r\n") == {
        "a": 1, "  b": 1, "c": 1, " ": 1, " d": 1, "e": 1, "f": 1, "g": 1,
    }  # fmt: skip


def test_a_gigantic_line_is_cut():
    words = count_words("x" * 1_000_000)
    assert words["x" * MAX_WORD_CHARACTERS] == 1_000_000 // MAX_WORD_CHARACTERS
    assert sum(len(word) * count for word, count in words.items()) == 1_000_000


def test_everything_is_counted_while_it_fits():
    words = WordCounts(max_characters=100, seed=0)
    for _ in range(50):
        words.add("to be or not to be\n")
    assert words.counts == {"to": 50, " be": 100, " or": 50, " not": 50, " to": 50}
    assert words.rate == 1 and words.num_characters == 50 * 19


def test_a_sample_keeps_shares_of_frequent_and_of_rare_words():
    """4 words make half of the text, words that come once the other half. The sample has 8,000
    characters, so about a thousand once-words: a share is within 4 standard deviations, 12%."""
    words = WordCounts(max_characters=8_000, seed=7)
    once = (f" n{number:06d}" for number in random.Random(0).sample(range(10**6), 40_000))
    for _ in range(400):
        words.add(" common" * 100 + "".join(next(once) for _ in range(100)) + "\n")
    assert words.rate <= 1 / 16
    assert sum(map(len, words.counts)) <= 8_000
    common = words.counts[" common"] / words.rate
    rare = (sum(words.counts.values()) - words.counts[" common"]) / words.rate
    assert common == pytest.approx(40_000, rel=0.12)
    assert rare == pytest.approx(40_000, rel=0.12)


def test_a_sample_depends_on_the_seed_alone():
    def sample(seed):
        words = WordCounts(max_characters=500, seed=seed)
        for number in range(500):
            words.add(f"word{number} again{number // 2}")
        return words.counts

    assert sample(1) == sample(1) != sample(2)
