"""Comparison: what counts as the same, and where differences show."""

import dataclasses

import jax
import numpy as np
import pytest

from llama_jax.checkpoints.compare import _probes, _text_probe, compare, difference
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


def test_rope_scaling_shows_over_long_distances(save):
    scaling = dataclasses.replace(SMALL.rope_scaling, factor=32.0)
    other = dataclasses.replace(SMALL, rope_scaling=scaling)
    lines, differences = compare(save("a"), save("b", other))
    assert len(lines) == 1 and lines[0].startswith("rope_scaling: ")
    assert differences["across the context"].max_relative > 0.1
    assert differences["fixed tokens"].max_relative < 5e-3


@pytest.mark.parametrize("context_length", [1, 5, 64, 65, 131_072])
def test_positions_go_from_the_first_to_the_last(context_length):
    config = dataclasses.replace(SMALL, context_length=context_length)
    near, spread = _probes(None, [config, config], None)
    for probe in near, spread:
        assert probe.positions.shape == probe.tokens.shape
        assert (np.diff(probe.positions) > 0).all() and (probe.positions[:, 0] == 0).all()
    assert near.positions.max() == min(64, context_length) - 1
    assert spread.positions.max() == context_length - 1


@pytest.mark.parametrize("num_tokens", [1, 63, 64, 65, 1024, 1025, 5000])
def test_all_of_a_text_is_used_or_said_how_much(num_tokens):
    probe = _text_probe(list(range(num_tokens)), 64)
    assert set(probe.tokens.flat) == set(range(min(num_tokens, 1024)))
    assert ("1,024 of" in probe.name) == (num_tokens > 1024)


def test_vocabularies_must_agree(save):
    lines, differences = compare(save("a"), save("b", dataclasses.replace(SMALL, vocab_size=250)))
    assert lines == ["vocab_size: 256 and 250"]
    assert differences == {}


def test_a_text_needs_a_tokenizer(save):
    with pytest.raises(InputError, match="no tokenizer there"):
        compare(save("a"), save("b"), text="some text")
