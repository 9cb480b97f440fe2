"""The order of the rows: exact shares, whole epochs, a function of seed and index alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_jax.errors import InputError
from train.config import Source
from train.data.mixture import Mixture, spread
from train.data.packed_rows import PackedRows

from .conftest import HASH


@given(st.lists(st.integers(1, 60), min_size=1, max_size=12))
def test_every_prefix_has_every_source_within_a_row_of_its_share(counts):
    source_at, number_at = spread(counts)
    period = sum(counts)
    drawn = np.cumsum(source_at[:, None] == np.arange(len(counts)), axis=0)  # [P, sources]
    ideal = np.arange(1, period + 1)[:, None] * np.array(counts) / period
    # 1e-9: `ideal` is rounded.
    assert np.abs(drawn - ideal).max() < 1 + 1e-9
    assert list(drawn[-1]) == counts
    np.testing.assert_array_equal(number_at, drawn[np.arange(period), source_at] - 1)


def test_shares_hold_far_out_and_rows_drawn_counts_them(mixture):
    names = [mixture.source_of(index) for index in range(200)]
    for num_rows in range(200):
        drawn = mixture.rows_drawn(num_rows)
        assert drawn == {name: names[:num_rows].count(name) for name in ("low", "high")}
        assert abs(drawn["low"] - 0.75 * num_rows) < 1
    assert mixture.rows_drawn(4 * 10**15) == {"low": 3 * 10**15, "high": 10**15}


def test_a_row_far_out_costs_no_more_and_is_of_its_source(mixture):
    for index in (10**10, 10**10 + 1, 10**10 + 2, 10**10 + 3, 10**15):
        is_low = mixture.source_of(index) == "low"
        tokens = mixture[index].tokens
        assert tokens.max() < 200 if is_low else tokens.max() >= 500
        np.testing.assert_array_equal(tokens, mixture[index].tokens)


def rows_of(mixture, name, *, num_rows):
    return [bytes(mixture[i].tokens) for i in range(num_rows) if mixture.source_of(i) == name]


def test_every_epoch_of_a_source_has_each_of_its_rows_once_in_another_order(mixture):
    for name, rows in mixture.sources.items():
        everything = sorted(bytes(rows[i].tokens) for i in range(len(rows)))
        drawn = rows_of(mixture, name, num_rows=240)
        epochs = [drawn[at : at + len(rows)] for at in range(0, len(drawn), len(rows))][:4]
        assert all(sorted(epoch) == everything for epoch in epochs)
        assert len({tuple(epoch) for epoch in epochs}) == 4


def test_order_depends_on_the_seed_and_on_nothing_else(mixture):
    def order(seed):
        sources = tuple(
            Source(name, str(rows.path), weight)
            for (name, rows), weight in zip(mixture.sources.items(), (3, 1), strict=True)
        )
        other = Mixture(sources, row_length=8, seed=seed)
        return [bytes(other[i].tokens) for i in range(40)]

    assert order(5) == [bytes(mixture[i].tokens) for i in range(40)] != order(6)


def test_the_order_of_a_seed_is_the_same_in_every_release(mixture):
    """Runs outlive releases of Grain: a run that is continued must not see other rows."""
    rows = mixture.sources["low"]
    numbers = {bytes(rows[i].tokens): i for i in range(len(rows))}
    drawn = [numbers[row] for row in rows_of(mixture, "low", num_rows=16)]
    assert drawn == [7, 14, 9, 3, 1, 13, 5, 6, 0, 16, 4, 19]


def test_sources_of_one_length_are_not_shuffled_alike(write):
    sources = [Source(name, str(write(name, [np.arange(161)])), 1) for name in ("one", "two")]
    mixture = Mixture(sources, row_length=8, seed=0)
    one, two = (rows_of(mixture, name, num_rows=120) for name in ("one", "two"))
    assert all(one[at : at + 20] != two[:20] for at in range(0, 60, 20))


def test_shares_of_a_long_period_are_taken_to_a_hundred_thousandth(write):
    sources = [
        Source(name, str(write(name, [np.arange(50)])), weight)
        for name, weight in (("a", 0.1234567), ("b", 0.7654321), ("c", 1 / 3))
    ]
    total = sum(source.weight for source in sources)
    drawn = Mixture(sources, row_length=8, seed=0).rows_drawn(100_000)
    assert sum(drawn.values()) == 100_000
    for source in sources:
        assert abs(drawn[source.name] - source.weight / total * 100_000) <= 1
    with pytest.raises(InputError, match="weight 1e-06 of b gives it less than one row"):
        sources[1] = Source("b", sources[1].path, 1e-6)
        Mixture(sources, row_length=8, seed=0)


def test_what_does_not_belong_together_is_refused(write):
    one, other = (
        write("one", [np.arange(50)]),
        write("other", [np.arange(50)], tokenizer_sha256="b" * 64),
    )
    sources = (Source("one", str(one), 1), Source("other", str(other), 1))
    with pytest.raises(InputError, match=r"other: was prepared with the tokenizer bbbb.*aaaa"):
        Mixture(sources, row_length=8, seed=0)
    with pytest.raises(InputError, match=r"one: has rows of 8 tokens, not of row_length 4"):
        Mixture(sources[:1], row_length=4, seed=0, tokenizer_sha256=HASH)
    with pytest.raises(InputError, match="names of their own"):
        Mixture((sources[0], sources[0]), row_length=8, seed=0)
    with pytest.raises(InputError, match="seed must be"):
        Mixture(sources[:1], row_length=8, seed=2**32)
    for weight in (0, -1, float("nan"), float("inf")):
        with pytest.raises(InputError, match="weight of one must be more than 0"):
            Mixture((Source("one", str(one), weight),), row_length=8, seed=0)


def test_more_rows_than_can_be_shuffled_are_refused(write, monkeypatch):
    source = Source("huge", str(write("huge", [np.arange(50)])), 1)
    monkeypatch.setattr(PackedRows, "__len__", lambda rows: 2**32)
    Mixture((source,), row_length=8, seed=0)
    monkeypatch.setattr(PackedRows, "__len__", lambda rows: 2**32 + 1)
    with pytest.raises(InputError, match=r"huge: has 4294967297 rows, and at most 4294967296 of"):
        Mixture((source,), row_length=8, seed=0)


def test_one_source_alone_is_its_own_mixture(write):
    rows = PackedRows(write("one", [np.arange(50)]))
    mixture = Mixture((Source("one", str(rows.path), 0.3),), row_length=8, seed=1)
    drawn = sorted(int(mixture[i].tokens[0]) for i in range(len(rows)))
    assert drawn == [int(rows[i].tokens[0]) for i in range(len(rows))]
    assert mixture.vocab_size == 1000 and mixture.tokenizer_sha256 == HASH
