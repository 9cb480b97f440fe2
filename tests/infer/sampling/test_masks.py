"""Packed masks: bit i of word w is id 32 w + i."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infer.sampling import full_mask, mask_of, num_words
from infer.sampling.masks import masked, without

_masked, _without = jax.jit(masked), jax.jit(without)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 100).flatmap(lambda v: st.tuples(st.just(v), st.sets(st.integers(0, v - 1)))))
def test_a_mask_has_the_bits_of_its_ids(case):
    vocab_size, ids = case
    mask = mask_of(ids, vocab_size)
    assert mask.dtype == np.uint32 and mask.shape == (num_words(vocab_size),)
    for token in range(vocab_size):
        assert (int(mask[token // 32]) >> (token % 32)) & 1 == (token in ids)


def test_only_the_ids_of_a_mask_stay():
    chooser = np.random.default_rng(0)
    logits = chooser.standard_normal((9, 200)).astype(np.float32)
    ids = [np.flatnonzero(chooser.random(200) < share) for share in np.linspace(0, 1, 9)]
    out = np.asarray(_masked(logits, np.stack([mask_of(row, 200) for row in ids])))
    for row, before, after in zip(ids, logits, out, strict=True):
        assert np.flatnonzero(after > -np.inf).tolist() == row.tolist()
        np.testing.assert_array_equal(after[row], before[row])


@pytest.mark.parametrize("vocab_size", [31, 32, 33, 128_256])
def test_the_last_word_may_be_partly_used(vocab_size):
    logits = np.zeros((1, vocab_size), np.float32)
    mask = mask_of([vocab_size - 1, vocab_size, vocab_size + 40], vocab_size)
    out = np.asarray(_masked(logits, mask[None]))
    assert np.flatnonzero(out[0] == 0).tolist() == [vocab_size - 1]
    assert np.asarray(_masked(logits, full_mask(vocab_size)[None])).sum() == 0


def test_forbidden_ids_of_no_row_are_none():
    logits = np.zeros((2, 5), np.float32)
    ids = np.array([[4, -1, -1], [0, 1, 9]], np.int32)
    out = np.asarray(_without(logits, ids, np.array([True, True])))
    assert np.isinf(out).tolist() == [[0, 0, 0, 0, 1], [1, 1, 0, 0, 0]]
    assert not np.isinf(_without(logits, ids, np.array([False, False]))).any()
