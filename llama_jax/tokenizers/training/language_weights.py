"""How much each language counts, so that the ones with little text get tokens too.

With the temperature T, a language with n characters of text has a share in proportion to n^(1/T):
its own for T = 1, ever more equal shares for greater T. Others draw lines until the shares are
reached; here counts of words are multiplied, which is what draws come to on average, without their
noise and without reading anything twice.

Reference: N. Arivazhagan et al., Massively multilingual neural machine translation in the wild,
arXiv 1907.05019, section 4.1; XLM-R's 1/T is 0.3 (arXiv 1911.02116).
"""

from collections import Counter
from collections.abc import Mapping

from llama_jax.tokenizers.training.word_counts import WordCounts

# The least a count is multiplied by: the trainer wants integers, and rounding is then within 1%.
_LEAST_FACTOR = 100


def language_shares(num_characters: Mapping[str, int], *, temperature: float) -> dict[str, float]:
    """Language -> its share, 1 in all.

    Args:
      num_characters: of each language, at least 1.
      temperature: at least 1; `inf` gives equal shares.
    """
    powers = {language: number ** (1 / temperature) for language, number in num_characters.items()}
    total = sum(powers.values())
    return {language: power / total for language, power in powers.items()}


def weighted_counts(
    languages: Mapping[str, WordCounts], *, shares: Mapping[str, float]
) -> Counter[str]:
    """The words of all languages with the counts that give each language its share."""
    factors = {
        name: shares[name] / (words.num_characters * words.rate)
        for name, words in languages.items()
    }
    unit = min(factors.values()) / _LEAST_FACTOR
    total: Counter[str] = Counter()
    for name, words in languages.items():
        factor = factors[name] / unit
        total.update({word: round(count * factor) for word, count in words.counts.items()})
    return total
