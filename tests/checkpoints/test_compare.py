"""Comparison: what counts as the same, and where differences show."""

import dataclasses

import jax
import numpy as np
import pytest

from llama_jax.checkpoints.compare import compare, difference
from llama_jax.checkpoints.save import save_checkpoint
from llama_jax.config import TINY
from llama_jax.errors import InputError
from llama_jax.model import abstract_params

SMALL = dataclasses.replace(TINY, num_layers=1)


@pytest.fixture
def save(tmp_path):
    def make(name, config=SMALL, seed=0, **options):
        random = np.random.default_rng(seed)
        params = jax.tree.map(
            lambda leaf: random.normal(size=leaf.shape, scale=0.3).astype(np.float32),
            abstract_params(config),
        )
        save_checkpoint(tmp_path / name, config, params, format="hf", **options)
        return tmp_path / name

    return make


def test_difference_against_formulas():
    a = np.log(np.array([[[0.5, 0.25, 0.25]]], np.float32))
    b = np.log(np.array([[[0.25, 0.5, 0.25]]], np.float32))
    found = difference(a, b)
    assert found.mean_kl == pytest.approx(0.25 * np.log(2))
    assert found.max_relative == pytest.approx(0.5)
    assert found.greedy_agreement == 0
    # A constant added to all logits of a position changes no probability.
    assert difference(a, a + 3).mean_kl == pytest.approx(0, abs=1e-7)
    assert difference(a, np.full_like(a, np.nan)).max_relative == float("inf")


def test_rope_scaling_shows_at_long_positions(save):
    scaling = dataclasses.replace(SMALL.rope_scaling, factor=32.0)
    other = dataclasses.replace(SMALL, rope_scaling=scaling)
    lines, differences = compare(save("a"), save("b", other))
    assert len(lines) == 1 and lines[0].startswith("rope_scaling: ")
    assert differences["at the end of the context"].max_relative > 1e-3


def test_vocabularies_must_agree(save):
    lines, differences = compare(save("a"), save("b", dataclasses.replace(SMALL, vocab_size=250)))
    assert lines == ["vocab_size: 256 and 250"]
    assert differences == {}


def test_a_text_needs_a_tokenizer(save):
    with pytest.raises(InputError, match="no tokenizer there"):
        compare(save("a"), save("b"), text="some text")
