"""Log-probabilities chunk by chunk against the dense oracle and torch, and what they cost."""

import functools
import importlib.util
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.experimental import topologies
from jax.sharding import NamedSharding, PartitionSpec

from train.losses.token_log_probs import token_log_probs

from .jaxpr_shapes import shapes_in

_path = Path(__file__).parents[2] / "oracles" / "token_log_probs.py"
_spec = importlib.util.spec_from_file_location("token_log_probs_oracle", _path)
oracle = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(oracle)


def draw(seed, B, T, D, V):
    rng = np.random.default_rng(seed)
    hidden = rng.standard_normal((B, T, D), np.float32)
    head = rng.standard_normal((V, D), np.float32)
    targets = rng.integers(0, V, (B, T)).astype(np.int32)
    outer = rng.standard_normal((2, B, T), np.float32)  # gradients of the two outputs
    return hidden, head, targets, outer


@functools.partial(jax.jit, static_argnums=4)
def run(hidden, head, targets, outer, vocab_chunk):
    """Both outputs, then both gradients."""

    def local(hidden, head):
        return token_log_probs(hidden, head, targets, vocab_chunk=vocab_chunk)

    outputs, pull_back = jax.vjp(local, hidden, head)
    return outputs, pull_back(tuple(outer))


def assert_equals_the_oracle(inputs, vocab_chunk):
    outputs, gradients = run(*inputs, vocab_chunk)
    hidden, head, targets, outer = inputs
    expected = oracle.token_log_probs(hidden, head, targets)[:2]
    # float32 against float64: logits are sums of D <= 8 products, up to about 15.
    for result, wanted in zip(outputs, expected, strict=True):
        np.testing.assert_allclose(result, wanted, atol=1e-5)
    # Gradients are sums of at most 12 tokens, or 40 words, of numbers up to about 4.
    for result, wanted in zip(
        gradients, oracle.gradients(hidden, head, targets, *outer), strict=True
    ):
        np.testing.assert_allclose(result, wanted, atol=3e-5)


@settings(max_examples=15)
@given(
    seed=st.integers(0, 2**31),
    shape=st.tuples(*[st.integers(1, n) for n in (2, 6, 8, 40)]),
    vocab_chunk=st.integers(1, 50),
)
def test_equals_the_oracle_for_any_shape_and_chunk(seed, shape, vocab_chunk):
    assert_equals_the_oracle(draw(seed, *shape), vocab_chunk)


def test_targets_at_the_borders_of_chunks():
    hidden, head, _, outer = draw(0, 1, 10, 4, 10)
    targets = np.arange(10, dtype=np.int32)[None]
    # Chunks of 4 begin at 0, 4 and 6: the last shares two words with the one before.
    assert_equals_the_oracle((hidden, head, targets, outer), vocab_chunk=4)


def test_equals_torch():
    hidden, head, targets, _ = draw(1, 2, 16, 24, 1000)
    outer = np.stack([-np.ones((2, 16), np.float32), np.zeros((2, 16), np.float32)])
    (log_probs, _), gradients = run(hidden, head, targets, outer, 300)
    leaves = [torch.tensor(leaf, requires_grad=True) for leaf in (hidden, head)]
    logits = (leaves[0] @ leaves[1].T).reshape(-1, 1000)
    loss = torch.nn.functional.cross_entropy(
        logits, torch.tensor(targets).reshape(-1).long(), reduction="none"
    )
    loss.sum().backward()
    # Two float32 sums of 24 products and 1000 exponentials in different orders.
    np.testing.assert_allclose(-log_probs.reshape(-1), loss.detach(), rtol=1e-5, atol=1e-5)
    for result, leaf in zip(gradients, leaves, strict=True):
        np.testing.assert_allclose(result, leaf.grad, rtol=1e-4, atol=1e-5)


def test_extreme_logits_do_not_overflow():
    hidden = np.array([[[1e4], [-1e4], [0.0]]], np.float32)
    head = np.array([[1.0], [-1.0], [0.5], [0.0], [1.0]], np.float32)
    targets = np.array([[0, 0, 4]], np.int32)
    outer = np.ones((2, 1, 3), np.float32)
    (log_probs, log_normalisers), gradients = run(hidden, head, targets, outer, 2)
    expected = oracle.token_log_probs(hidden, head, targets)
    # A float32 of 1e4 has steps of 1e-3.
    np.testing.assert_allclose(log_probs, expected[0], atol=1e-3)
    np.testing.assert_allclose(log_normalisers, expected[1], atol=1e-3)
    for result, wanted in zip(
        gradients, oracle.gradients(hidden, head, targets, *outer), strict=True
    ):
        # Probabilities of a half times 1e4, and the same step of 1e-3 in the exponents.
        np.testing.assert_allclose(result, wanted, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("target", [-1, 10, 2**31 - 1])
def test_a_word_that_does_not_exist_has_probability_zero(target):
    hidden, head, targets, outer = draw(2, 1, 2, 4, 10)
    targets[0, 0] = target
    (log_probs, log_normalisers), _ = run(hidden, head, targets, outer, 4)
    assert log_probs[0, 0] == -np.inf
    assert np.isfinite(log_probs[0, 1]) and np.isfinite(log_normalisers).all()


def test_bfloat16_hidden_with_a_float32_head():
    hidden, head, targets, outer = draw(3, 2, 32, 64, 200)
    hidden, head = jnp.bfloat16(hidden), head / 8  # logits of order one
    (log_probs, log_normalisers), gradients = run(hidden, head, targets, outer, 64)
    assert log_probs.dtype == log_normalisers.dtype == gradients[1].dtype == jnp.float32
    assert gradients[0].dtype == jnp.bfloat16

    rounded = np.float64(jnp.bfloat16(head))
    hidden = np.float64(hidden)
    expected = oracle.token_log_probs(hidden, rounded, targets)
    # Products of bfloat16 numbers are exact in float32; only the sums of 64 are rounded.
    np.testing.assert_allclose(log_probs, expected[0], atol=1e-5)
    np.testing.assert_allclose(log_normalisers, expected[1], atol=1e-5)
    # The gradient of each logit is rounded to bfloat16 (by at most 2^-8 of it) before the products,
    # and the gradient of hidden once more after them; the rest is float32.
    of_logits = oracle.logits_gradient(hidden, rounded, targets, *outer)
    of_hidden, of_head = oracle.gradients(hidden, rounded, targets, *outer)
    limit = 2**-8 * (np.abs(of_logits) @ np.abs(rounded) + np.abs(of_hidden)) + 1e-5
    assert (np.abs(np.float64(gradients[0]) - of_hidden) <= limit).all()
    limit = 2**-8 * np.einsum("btv,btd->vd", np.abs(of_logits), np.abs(hidden)) + 1e-5
    assert (np.abs(np.float64(gradients[1]) - of_head) <= limit).all()
    assert (gradients[1] != gradients[1].astype(jnp.bfloat16)).any(), "rounded through bfloat16"


# One device's share of 8B: a row of 8,192 tokens. 128,256 words are 16 chunks of 8,016.
M, D, V, CHUNK = 8192, 4096, 128_256, 8192
GIBIBYTE = 2**30


def forward(hidden, head, targets):
    return token_log_probs(hidden, head, targets, vocab_chunk=CHUNK)


def gradient(hidden, head, targets):
    def total(hidden, head):
        log_probs, log_normalisers = forward(hidden, head, targets)
        return jnp.sum(log_probs) + jnp.sum(log_normalisers**2)

    return jax.grad(total, argnums=(0, 1))(hidden, head)


def shapes_of_8b(sharding=None):
    shapes = (((1, M, D), jnp.bfloat16), ((V, D), jnp.float32), ((1, M), jnp.int32))
    return [jax.ShapeDtypeStruct(*shape, sharding=sharding) for shape in shapes]


@pytest.mark.parametrize("platform", ["cpu", "v5e:2x2", "v5p:2x2x1"])
@pytest.mark.parametrize("function", [forward, gradient])
def test_takes_less_than_a_gibibyte_at_the_shapes_of_8b(function, platform):
    device = jax.devices()[0]
    if platform != "cpu":
        pytest.importorskip("libtpu")
        device = topologies.get_topology_desc(platform="tpu", topology_name=platform).devices[0]
    here = NamedSharding(jax.sharding.Mesh([device], "one"), PartitionSpec())
    memory = jax.jit(function).lower(*shapes_of_8b(here)).compile().memory_analysis()
    assert 0 < memory.temp_size_in_bytes < GIBIBYTE


def test_no_array_has_all_tokens_and_all_words():
    largest = max(
        math.prod(shape) for shape in shapes_in(jax.make_jaxpr(gradient)(*shapes_of_8b()).jaxpr)
    )
    assert largest == V * D  # the head and its gradient; [M, V] is twice as much
    wide = [shape for shape in shapes_in(jax.make_jaxpr(forward)(*shapes_of_8b()).jaxpr)]
    assert max(math.prod(shape) for shape in wide if V not in shape) == M * 8016
