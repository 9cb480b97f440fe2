"""Temperature, top-k, top-p and min-p against numpy and against transformers' processors."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from infer.sampling import (
    SamplingParameters,
    sample,
    stack_sampling,
    truncated_logits,
)
from tests.infer.sampling.oracle import probabilities_by_numpy

VOCAB = 37
_truncated = jax.jit(truncated_logits, static_argnames="mode")


def random_logits(rows: int, vocab: int = VOCAB, seed: int = 0) -> np.ndarray:
    return (3 * np.random.default_rng(seed).standard_normal((rows, vocab))).astype(np.float32)


def kept_by_numpy(logits: np.ndarray, parameters: SamplingParameters) -> np.ndarray:
    return probabilities_by_numpy(logits, parameters) > 0


def kept_by_us(logits: np.ndarray, parameters: SamplingParameters) -> np.ndarray:
    rows, mode = stack_sampling([parameters])
    return np.isfinite(np.asarray(_truncated(logits[None], rows, mode=mode)))[0]


@settings(max_examples=60, deadline=None)
@given(
    logits=hnp.arrays(np.float32, VOCAB, elements=st.floats(-30, 30, width=16), unique=True),
    temperature=st.floats(0.1, 4),
    top_p=st.floats(0.01, 1),
    top_k=st.integers(0, VOCAB + 3),
    min_p=st.sampled_from([0.0, 0.0, 1e-4, 0.03, 0.5, 1.0]),
)
def test_kept_tokens_equal_numpy(logits, temperature, top_p, top_k, min_p):
    parameters = SamplingParameters(temperature, top_p=top_p, top_k=top_k, min_p=min_p)
    expected = kept_by_numpy(logits, parameters)
    if np.array_equal(kept_by_us(logits, parameters), expected):
        return
    # float32 may put what equals a bound to 1e-6 on the other side of it.
    near = [
        kept_by_numpy(
            logits,
            dataclasses.replace(
                parameters,
                top_p=float(np.clip(top_p * (1 + error), 1e-9, 1)),
                min_p=float(np.clip(min_p * (1 - 4 * error), 0, 1)),
            ),
        )
        for error in (-2e-6, 2e-6)
    ]
    assert not np.array_equal(*near)


@pytest.mark.parametrize("min_p", [0.0, 0.02, 0.3, 1.0])
@pytest.mark.parametrize("top_p", [0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("top_k", [0, 1, 5, VOCAB])
@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
def test_distribution_equals_transformers(temperature, top_k, top_p, min_p):
    """In the order in which transformers' generate lists its processors."""
    torch = pytest.importorskip("torch")
    processors = pytest.importorskip("transformers").generation.logits_process
    logits = random_logits(8)
    scores = torch.from_numpy(logits.copy())
    warpers = [processors.TemperatureLogitsWarper(temperature)]
    warpers += [processors.TopKLogitsWarper(top_k)] if top_k else []
    warpers += [processors.TopPLogitsWarper(top_p), processors.MinPLogitsWarper(min_p)]
    for warper in warpers:
        scores = warper(None, scores)
    expected = torch.softmax(scores, dim=-1).numpy()

    parameters = SamplingParameters(temperature, top_p=top_p, top_k=top_k, min_p=min_p)
    rows, mode = stack_sampling([parameters] * 8)
    ours = jax.nn.softmax(_truncated(logits, rows, mode=mode), axis=-1)
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


def test_min_p_keeps_by_the_ratio_to_the_likeliest():
    """Probabilities 1/2, 1/4, 1/8, 1/8; the likeliest stays whatever the bound."""
    logits = np.log(np.array([4, 2, 1, 1], np.float32))
    assert kept_by_us(logits, SamplingParameters(1.0, min_p=0.3)).tolist() == [1, 1, 0, 0]
    assert kept_by_us(logits, SamplingParameters(1.0, min_p=0.2)).tolist() == [1, 1, 1, 1]
    assert kept_by_us(logits, SamplingParameters(1.0, min_p=1.0)).tolist() == [1, 0, 0, 0]
    # At temperature 2 the ratios are the square roots.
    assert kept_by_us(logits, SamplingParameters(2.0, min_p=0.6)).tolist() == [1, 1, 0, 0]


def test_min_p_does_not_narrow_the_nucleus():
    """vLLM would take the nucleus of what min-p leaves: [5, 4] / 9, and cut the second."""
    logits = np.log(np.array([5, 4, 1], np.float32))
    parameters = SamplingParameters(1.0, top_p=0.53, min_p=0.5)
    assert kept_by_us(logits, parameters).tolist() == [1, 1, 0]


def test_a_row_with_nothing_left_has_no_nan_in_it():
    rows, mode = stack_sampling([SamplingParameters(1.0, top_k=2, min_p=0.1)])
    out = np.asarray(_truncated(np.full((1, 8), -np.inf, np.float32), rows, mode=mode))
    assert np.all(out == -np.inf)


@pytest.mark.parametrize("temperature", [1e-30, 1e-6, 1e30])
def test_extreme_temperatures_stay_finite(temperature):
    logits = jnp.asarray(random_logits(1) * 1000)
    rows, mode = stack_sampling([SamplingParameters(temperature, top_p=0.9, top_k=30)])
    kept = np.asarray(_truncated(logits, rows, mode=mode))
    assert not np.isnan(kept).any() and np.isfinite(kept).any()
    if temperature < 1:
        assert sample(logits, rows, np.zeros(1, np.int32), mode=mode)[0] == logits.argmax()
