"""Sampling against an independent numpy implementation and transformers' processors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from infer.sampling import (
    GREEDY,
    SamplingMode,
    SamplingParameters,
    sample,
    stack_sampling,
    truncated_logits,
)
from llama_jax.errors import InputError

VOCAB = 37
_truncated = jax.jit(truncated_logits, static_argnames="mode")


def random_logits(rows: int, vocab: int = VOCAB, seed: int = 0) -> np.ndarray:
    return (3 * np.random.default_rng(seed).standard_normal((rows, vocab))).astype(np.float32)


def kept_by_numpy(logits: np.ndarray, parameters: SamplingParameters) -> np.ndarray:
    """Which tokens stay, by sorting in float64: the definition, written out."""
    scaled = logits.astype(np.float64) / parameters.temperature
    kept = np.ones(len(logits), bool)
    if parameters.top_k:
        kept &= np.array([np.sum(scaled > value) < parameters.top_k for value in scaled])
    probabilities = np.where(kept, np.exp(scaled - scaled.max()), 0)
    probabilities /= probabilities.sum()
    before = np.array([probabilities[scaled > value].sum() for value in scaled])
    return kept & (before <= parameters.top_p) if parameters.top_p < 1 else kept


def kept_by_us(logits: np.ndarray, parameters: SamplingParameters) -> np.ndarray:
    rows, mode = stack_sampling([parameters])
    return np.isfinite(np.asarray(_truncated(logits[None], rows, mode=mode)))[0]


@settings(max_examples=60, deadline=None)
@given(
    logits=hnp.arrays(np.float32, VOCAB, elements=st.floats(-30, 30, width=16), unique=True),
    temperature=st.floats(0.1, 4),
    top_p=st.floats(0.01, 1),
    top_k=st.integers(0, VOCAB + 3),
)
def test_kept_tokens_equal_numpy(logits, temperature, top_p, top_k):
    parameters = SamplingParameters(temperature, top_p=top_p, top_k=top_k)
    expected = kept_by_numpy(logits, parameters)
    if np.array_equal(kept_by_us(logits, parameters), expected):
        return
    # float32 sums may put a partial sum that equals top_p to 1e-6 on the other side.
    near = [
        kept_by_numpy(logits, SamplingParameters(temperature, top_p=p, top_k=top_k))
        for p in (max(top_p - 2e-6, 1e-9), min(top_p + 2e-6, 1.0))
    ]
    assert not np.array_equal(*near)


@pytest.mark.parametrize("top_p", [0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("top_k", [0, 1, 5, VOCAB])
@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
def test_distribution_equals_transformers(temperature, top_k, top_p):
    torch = pytest.importorskip("torch")
    processors = pytest.importorskip("transformers").generation.logits_process
    logits = random_logits(8)
    scores = torch.from_numpy(logits.copy())
    warpers = [processors.TemperatureLogitsWarper(temperature)]
    warpers += [processors.TopKLogitsWarper(top_k)] if top_k else []
    warpers += [processors.TopPLogitsWarper(top_p)]
    for warper in warpers:
        scores = warper(None, scores)
    expected = torch.softmax(scores, dim=-1).numpy()

    rows, mode = stack_sampling([SamplingParameters(temperature, top_p=top_p, top_k=top_k)] * 8)
    ours = jax.nn.softmax(truncated_logits(logits, rows, mode=mode), axis=-1)
    # float32 softmax of 37 terms, twice.
    np.testing.assert_allclose(ours, expected, atol=2e-6)


def test_nucleus_is_metas_rule_where_transformers_differs():
    """At a partial sum that equals top_p, and for tokens of equal logit. Probabilities 1/2, 1/4,
    1/8, 1/8 and their sums are exact."""
    logits = np.log2(np.array([4, 2, 1, 1], np.float32)) * np.float32(np.log(2))
    assert kept_by_us(logits, SamplingParameters(1.0, top_p=0.5)).tolist() == [1, 1, 0, 0]
    assert kept_by_us(logits, SamplingParameters(1.0, top_p=0.49)).tolist() == [1, 0, 0, 0]
    assert kept_by_us(logits, SamplingParameters(1.0, top_p=0.76)).tolist() == [1, 1, 1, 1]
    assert kept_by_us(logits, SamplingParameters(1.0, top_k=3)).tolist() == [1, 1, 1, 1]


def test_draws_follow_the_distribution():
    """20,000 positions of one row: frequencies within 4.5 standard deviations of the softmax."""
    num_draws = 20_000
    logits = random_logits(1, vocab=12)
    parameters = SamplingParameters(0.8, top_p=0.95, top_k=9, seed=11)
    rows, mode = stack_sampling([parameters])
    expected = np.asarray(jax.nn.softmax(truncated_logits(logits, rows, mode=mode)))[0]
    rows, mode = stack_sampling([parameters] * num_draws)
    drawn = sample(np.repeat(logits, num_draws, 0), rows, np.arange(num_draws), mode=mode)
    frequency = np.bincount(drawn, minlength=12) / num_draws
    assert np.all(frequency[expected == 0] == 0)
    deviation = np.sqrt(expected * (1 - expected) / num_draws)
    assert np.all(np.abs(frequency - expected) <= 4.5 * deviation)


def test_seeds_and_positions_change_the_draw_and_nothing_else_does():
    logits = np.repeat(random_logits(1), 64, 0)
    at = np.full(64, 5)
    by_seed = [SamplingParameters(2.0, seed=seed) for seed in range(64)]
    rows, mode = stack_sampling(by_seed)
    first = np.asarray(sample(logits, rows, at, mode=mode))
    assert len(set(first.tolist())) > 10
    assert len(set(np.asarray(sample(logits, rows, at + 1, mode=mode) == first).tolist())) == 2
    rows, mode = stack_sampling([by_seed[3]] * 64)
    same_seed = np.asarray(sample(logits, rows, np.arange(64), mode=mode))
    assert len(set(same_seed.tolist())) > 10
    assert same_seed[5] == first[3]


def test_a_row_does_not_depend_on_its_batch():
    """Alone, or beside rows that make the batch compute top-k, top-p and noise."""
    logits = random_logits(5, vocab=500)
    positions = np.arange(5, dtype=np.int32)
    parameters = [
        GREEDY,
        SamplingParameters(1.5, seed=2**32 - 1),
        SamplingParameters(1.5, top_k=7, seed=1),
        SamplingParameters(1.5, top_p=0.8, seed=2),
        SamplingParameters(0.0, top_p=0.1, top_k=1, seed=2),
    ]
    rows, mode = stack_sampling(parameters)
    together = sample(logits, rows, positions, mode=mode)
    for index, row in enumerate(parameters):
        rows, mode = stack_sampling([row])
        here = slice(index, index + 1)
        assert sample(logits[here], rows, positions[here], mode=mode)[0] == together[index]


def test_greedy_computes_nothing_else():
    assert stack_sampling([GREEDY, SamplingParameters(0.0, top_p=0.5, top_k=3)])[1] == SamplingMode(
        random=False, top_k=False, top_p=False
    )
    logits = random_logits(4)
    rows, mode = stack_sampling([GREEDY] * 4)
    np.testing.assert_array_equal(
        sample(logits, rows, np.zeros(4, np.int32), mode=mode), logits.argmax(-1)
    )
    program = jax.jit(lambda *a: sample(*a, mode=mode)).lower(logits, rows, np.zeros(4, np.int32))
    assert "while" not in program.as_text()


@pytest.mark.parametrize("temperature", [1e-30, 1e-6, 1e30])
def test_extreme_temperatures_stay_finite(temperature):
    logits = jnp.asarray(random_logits(1) * 1000)
    rows, mode = stack_sampling([SamplingParameters(temperature, top_p=0.9, top_k=30)])
    kept = np.asarray(truncated_logits(logits, rows, mode=mode))
    assert not np.isnan(kept).any() and np.isfinite(kept).any()
    if temperature < 1:
        assert sample(logits, rows, np.zeros(1, np.int32), mode=mode)[0] == logits.argmax()


@pytest.mark.parametrize(
    "fields, name",
    [
        ({"temperature": -1.0}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": 1.0, "top_p": 0.0}, "top_p"),
        ({"temperature": 1.0, "top_p": 1.1}, "top_p"),
        ({"temperature": 1.0, "top_k": -1}, "top_k"),
        ({"temperature": 1.0, "seed": -1}, "seed"),
        ({"temperature": 1.0, "seed": 2**32}, "seed"),
    ],
)
def test_numbers_without_meaning_are_refused(fields, name):
    with pytest.raises(InputError, match=name):
        SamplingParameters(**fields)
