"""Log-probabilities on meshes of eight devices equal the dense oracle, and so do all gradients."""

import importlib.util
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from sharding.mesh import MeshShape, make_mesh
from sharding.sharded_log_probs import sharded_log_probs
from train.losses.token_log_probs import token_log_probs

pytestmark = pytest.mark.usefixtures("quick_compilation")

_path = Path(__file__).parents[1] / "oracles" / "token_log_probs.py"
_spec = importlib.util.spec_from_file_location("token_log_probs_oracle", _path)
oracle = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(oracle)

B, T, D, V, CHUNK = 8, 16, 8, 80, 7  # chunks overlap on every mesh below

MESHES = [
    MeshShape(fsdp=1),
    MeshShape(tensor=8),
    MeshShape(fsdp=8),
    MeshShape(data=8),
    MeshShape(context=8),
    MeshShape(stage=8, fsdp=1),
    MeshShape(fsdp=2, tensor=4),
    MeshShape(data=2, fsdp=2, tensor=2),
    MeshShape(fsdp=2, context=2, tensor=2),
    MeshShape(data=2, stage=2, fsdp=1, context=2),
]


def draw(dtype=np.float32):
    rng = np.random.default_rng(0)
    hidden = rng.standard_normal((B, T, D), np.float32).astype(dtype)
    head = rng.standard_normal((V, D), np.float32)
    targets = rng.integers(0, V, (B, T)).astype(np.int32)
    return hidden, head, targets, rng.standard_normal((2, B, T), np.float32)


def run_on(mesh):
    """A compiled function, and its arguments laid on `mesh` as a training step has them."""
    operator = sharded_log_probs(token_log_probs, mesh, vocab_chunk=CHUNK)

    def run(hidden, head, targets, outer):
        outputs, pull_back = jax.vjp(lambda *x: operator(*x, targets), hidden, head)
        return outputs, pull_back((outer[0], outer[1]))

    rows = ("data", "fsdp")
    specs = (
        P(rows, ("context", "tensor"), None),
        P("tensor", "fsdp"),
        P(rows, "context"),
        P(None, rows, "context"),
    )
    shardings = tuple(NamedSharding(mesh, spec) for spec in specs)
    return jax.jit(run, in_shardings=shardings), shardings


@pytest.mark.parametrize("shape", MESHES, ids=str)
def test_equals_the_oracle_on_any_mesh(shape):
    num_devices = 1 if shape == MeshShape(fsdp=1) else 8
    mesh = make_mesh(shape, jax.devices()[:num_devices])
    run, shardings = run_on(mesh)
    hidden, head, targets, outer = inputs = draw()
    outputs, gradients = run(*jax.device_put(inputs, shardings))
    # float32 against float64: logits are sums of 8 products, up to about 10.
    for result, wanted in zip(
        outputs, oracle.token_log_probs(hidden, head, targets)[:2], strict=True
    ):
        np.testing.assert_allclose(result, wanted, atol=1e-5)
    # The head's are sums over 128 tokens of numbers up to about 10. A sum too few or too many
    # would be wrong by a factor of two at least.
    for result, wanted in zip(
        gradients, oracle.gradients(hidden, head, targets, *outer), strict=True
    ):
        np.testing.assert_allclose(result, wanted, atol=1e-4)


def test_gradients_of_micro_batches_add_up_inside_a_scan():
    mesh = make_mesh(MeshShape(data=2, fsdp=2, tensor=2))
    operator = sharded_log_probs(token_log_probs, mesh, vocab_chunk=CHUNK)
    hidden, head, targets, outer = draw()

    @jax.jit
    def accumulate(head):
        def loss(head, hidden, targets):
            remembered = jax.checkpoint(operator)
            return sum(jnp.sum(part) for part in remembered(hidden, head, targets))

        def add(total, batch):
            return total + jax.grad(loss)(head, *batch), None

        batches = hidden.reshape(2, B // 2, T, D), targets.reshape(2, B // 2, T)
        return jax.lax.scan(add, jnp.zeros_like(head), batches)[0]

    expected = oracle.gradients(hidden, head, targets, np.ones((B, T)), np.ones((B, T)))[1]
    np.testing.assert_allclose(accumulate(head), expected, atol=1e-4)  # as above


def test_gathers_are_bfloat16_and_sums_are_float32():
    mesh = make_mesh(MeshShape(fsdp=4, tensor=2))
    run, _ = run_on(mesh)
    program = run.lower(*draw(jnp.bfloat16)).as_text()
    gathers = re.findall(r"stablehlo.all_gather.*-> tensor<\S*x(\w+)>", program)
    assert len(gathers) == 4 and set(gathers) == {"bf16"}  # hidden and head, forward and backward
    scatters = re.findall(r'"stablehlo.reduce_scatter".*?-> tensor<\S*x(\w+)>', program, re.S)
    assert len(scatters) == 2 and set(scatters) == {"f32"}
