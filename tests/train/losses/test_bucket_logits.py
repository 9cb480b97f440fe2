"""The vocabulary in buckets, and the words that are most probable, against numpy and torch."""

import functools

import jax
import numpy as np
import pytest
import torch

from sharding.mesh import MeshShape, make_mesh
from sharding.sharded_log_probs import sharded_log_probs
from train.losses.bucket_logits import EMPTY, bucket_logits
from train.losses.top_tokens import top_tokens

pytestmark = pytest.mark.usefixtures("quick_compilation")

B, T, D, V, CHUNK = 4, 8, 8, 80, 7  # chunks overlap, on one device and on meshes
TEMPERATURE = 2.5
MESHES = [
    MeshShape(fsdp=2, tensor=4),
    MeshShape(data=2, fsdp=2, tensor=2),
    MeshShape(fsdp=2, context=2, tensor=2),
]


def draw(K):
    rng = np.random.default_rng(K)
    hidden, head = (rng.standard_normal(shape, np.float32) for shape in ((B, T, D), (V, D)))
    words = rng.permuted(np.tile(np.arange(V, dtype=np.int32), (B, T, 1)), axis=-1)[..., :K]
    return hidden, head, words, rng.standard_normal((B, T, K + 1), np.float32)


def run_with(function):
    """Compiled: the logits, and the gradients of hidden and head."""

    @jax.jit
    def run(hidden, head, words, outer):
        logits, pull_back = jax.vjp(lambda *x: function(*x, words), hidden, head)
        return logits, *pull_back(outer)

    return run


def by_torch(hidden, head, words, outer):
    """float64; the last bucket of all words has no logit."""
    hidden, head, outer = (
        torch.tensor(x, dtype=torch.float64).requires_grad_() for x in (hidden, head, outer)
    )
    logits = hidden @ head.T / TEMPERATURE
    words = torch.tensor(words).long()
    others = torch.ones(logits.shape, dtype=torch.bool).scatter(-1, words, False)
    chosen = logits.gather(-1, words)
    if words.shape[-1] == V:
        total = (chosen * outer[..., :-1]).sum()
        rest = torch.full((B, T, 1), EMPTY)
    else:
        rest = torch.logsumexp(logits.masked_fill(~others, -torch.inf), -1, keepdim=True)
        total = (torch.cat([chosen, rest], -1) * outer).sum()
    gradients = torch.autograd.grad(total, (hidden, head))
    return [part.detach().numpy() for part in (torch.cat([chosen, rest], -1), *gradients)]


def assert_same(results, expected):
    # float32 against float64: logits are sums of 8 products, up to about 10; gradients are sums of
    # 32 tokens of numbers up to about 10.
    for result, wanted in zip(results, expected, strict=True):
        np.testing.assert_allclose(result, wanted, rtol=1e-5, atol=5e-5)


@pytest.mark.parametrize("K", [1, 5, V])
def test_buckets_and_their_gradients_are_torch_s(K):
    local = functools.partial(bucket_logits, temperature=TEMPERATURE, vocab_chunk=CHUNK)
    inputs = draw(K)
    assert_same(run_with(local)(*inputs), by_torch(*inputs))


@pytest.mark.parametrize("shape", MESHES, ids=str)
def test_every_mesh_gives_the_same_buckets(shape):
    mesh = make_mesh(shape, jax.devices()[:8])
    function = sharded_log_probs(bucket_logits, mesh, vocab_chunk=CHUNK, temperature=TEMPERATURE)
    inputs = draw(5)
    assert_same(run_with(function)(*inputs), by_torch(*inputs))


@pytest.mark.parametrize("shape", [None, *MESHES], ids=str)
@pytest.mark.parametrize("K", [3, V])
def test_the_most_probable_words_come_first(K, shape):
    hidden, head, *_ = draw(1)
    head[41], head[7] = head[3], head[3]  # of equal ones the lower id
    if shape is None:
        function = functools.partial(top_tokens, vocab_chunk=CHUNK, count=K)
    else:
        mesh = make_mesh(shape, jax.devices()[:8])
        function = sharded_log_probs(top_tokens, mesh, vocab_chunk=CHUNK, count=K)
    found = jax.jit(function)(hidden, head)
    expected = np.argsort(-(hidden @ head.T), axis=-1, kind="stable")[..., :K]
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, expected)
