"""Divergences of two models over the vocabulary, chunk by chunk, against torch's."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from sharding.mesh import MeshShape, make_mesh
from sharding.sharded_log_probs import sharded_log_probs
from train.losses.divergences import divergences

from .jaxpr_shapes import shapes_in

pytestmark = pytest.mark.usefixtures("quick_compilation")

B, T, D, E, V, CHUNK = 4, 8, 8, 16, 80, 7  # chunks overlap, on one device and on meshes
TEMPERATURE = 2.5


@pytest.fixture(scope="module")
def inputs():
    """Hidden and head of student and teacher, and gradients of the two outputs."""
    rng = np.random.default_rng(0)
    shapes = ((B, T, D), (V, D), (B, T, E), (V, E), (2, B, T))
    return [rng.standard_normal(shape, np.float32) for shape in shapes]


def run_with(function):
    """Compiled: both divergences, and the student's two gradients."""

    @jax.jit
    def run(hidden, head, teacher_hidden, teacher_head, outer):
        teacher = (teacher_hidden, teacher_head)
        outputs, pull_back = jax.vjp(lambda *student: function(*student, *teacher), hidden, head)
        return outputs, pull_back((outer[0], outer[1]))

    return run


def by_torch(inputs, temperature):
    """float64."""
    *arrays, outer = (torch.tensor(array, dtype=torch.float64) for array in inputs)
    hidden, head, teacher_hidden, teacher_head = arrays
    student = [hidden.requires_grad_(), head.requires_grad_()]
    p_student = torch.log_softmax(hidden @ head.T / temperature, -1)
    p_teacher = torch.log_softmax(teacher_hidden @ teacher_head.T / temperature, -1)
    divergence = functools.partial(
        torch.nn.functional.kl_div, reduction="none", log_target=True
    )  # of (log q, log p) it is p * (log p - log q)
    outputs = divergence(p_student, p_teacher).sum(-1), divergence(p_teacher, p_student).sum(-1)
    gradients = torch.autograd.grad(outputs, student, (outer[0], outer[1]))
    return [part.detach().numpy() for part in (*outputs, *gradients)]


@pytest.mark.parametrize("temperature", [1.0, TEMPERATURE])
def test_both_and_their_gradients_are_torch_s(inputs, temperature):
    local = functools.partial(divergences, temperature=temperature, vocab_chunk=CHUNK)
    outputs, gradients = run_with(local)(*inputs)
    expected = by_torch(inputs, temperature)
    assert expected[0].min() > 0.1 and np.abs(expected[0] - expected[1]).max() > 0.1
    # float32 against float64: logits are sums of 16 products, up to about 15; gradients are sums of
    # 32 tokens, or 80 words, of numbers up to about 10.
    for result, wanted in zip((*outputs, *gradients), expected, strict=True):
        np.testing.assert_allclose(result, wanted, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    "shape",
    [MeshShape(fsdp=2, tensor=4), MeshShape(data=2, fsdp=2, tensor=2),
     MeshShape(fsdp=2, context=2, tensor=2)],
    ids=str,
)  # fmt: skip
def test_every_mesh_gives_the_same(inputs, shape):
    mesh = make_mesh(shape, jax.devices()[:8])
    function = sharded_log_probs(
        divergences, mesh, vocab_chunk=CHUNK, num_models=2, temperature=TEMPERATURE
    )
    outputs, gradients = run_with(function)(*inputs)
    # As above. A sum over devices too few or too many would be wrong by a factor of two at least.
    for result, wanted in zip((*outputs, *gradients), by_torch(inputs, TEMPERATURE), strict=True):
        np.testing.assert_allclose(result, wanted, rtol=1e-5, atol=1e-4)


def test_a_student_that_is_its_teacher_has_nothing_to_learn(inputs):
    hidden, head, *_, outer = inputs
    local = functools.partial(divergences, temperature=1.0, vocab_chunk=CHUNK)
    outputs, gradients = run_with(local)(hidden, head, hidden, head, outer)
    for result in (*outputs, *gradients):  # the rounding of log-normalisers up to about 10
        np.testing.assert_allclose(result, 0.0, atol=5e-6)


def test_extreme_logits_do_not_overflow():
    hidden, teacher = (
        np.array([[[1e4], [-1e4]]], np.float32),
        np.array([[[1e4], [0.0]]], np.float32),
    )
    head = np.array([[1.0], [-1.0], [0.5], [0.0]], np.float32)
    local = functools.partial(divergences, temperature=1.0, vocab_chunk=3)
    outputs, gradients = run_with(local)(hidden, head, teacher, head, np.ones((2, 1, 2)))
    # Certain alike; and certain of the second word, where the teacher takes all four for the same:
    # the others are 20000, 15000 and 10000 nats below it.
    np.testing.assert_allclose(outputs[0][0], [0.0, 11_250 - math.log(4)], atol=1e-2, rtol=1e-6)
    np.testing.assert_allclose(outputs[1][0], [0.0, math.log(4)], atol=1e-2)
    assert all(np.isfinite(gradient).all() for gradient in gradients)


def test_no_array_has_all_tokens_and_all_words():
    """At the shapes of 8B and its teacher of 70B, on one device: a row of 8,192 tokens."""
    tokens, width, teacher_width, words = 8192, 4096, 8192, 128_256
    arrays = [
        jax.ShapeDtypeStruct(shape, dtype)
        for shape, dtype in (
            ((1, tokens, width), jnp.bfloat16), ((words, width), jnp.float32),
            ((1, tokens, teacher_width), jnp.bfloat16), ((words, teacher_width), jnp.bfloat16),
        )
    ]  # fmt: skip

    def gradient(hidden, head, *teacher):
        def total(hidden, head):
            both = divergences(hidden, head, *teacher, temperature=1.0, vocab_chunk=8192)
            return jnp.sum(both[0]) + jnp.sum(both[1])

        return jax.grad(total, argnums=(0, 1))(hidden, head)

    shapes = set(shapes_in(jax.make_jaxpr(gradient)(*arrays).jaxpr))
    without_heads = [shape for shape in shapes if words not in shape]
    assert max(map(math.prod, without_heads)) == tokens * teacher_width
    assert {shape for shape in shapes if words in shape} == {(words, width), (words, teacher_width)}
