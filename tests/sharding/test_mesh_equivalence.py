"""Training on any mesh of eight devices is training on one: losses, gradients, parameters."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llama_jax.config import TINY
from llama_jax.model import REMAT_POLICIES
from sharding.mesh import MeshShape, make_mesh
from sharding.placement import batch_sharding, init_sharded_params, on_mesh
from train.config import OptimizerConfig, RunConfig
from train.job import make_network
from train.losses.cross_entropy import CrossEntropy
from train.optimizer import make_optimizer
from train.schedules import WarmupCosine
from train.state import abstract_state, new_state
from train.step import make_train_step

pytestmark = pytest.mark.usefixtures("quick_compilation")

# Four heads of keys, so that tensor 4 divides them; 96 words in chunks of 40, which overlap.
CONFIG = dataclasses.replace(
    TINY, vocab_size=96, model_dim=32, num_heads=8, num_kv_heads=4, head_dim=8, feed_forward_dim=64
)
ROWS, LENGTH, NUM_STEPS = 16, 32, 3
ONE = MeshShape(fsdp=1)
MESHES = [
    MeshShape(fsdp=8),
    MeshShape(data=8),
    MeshShape(fsdp=4, tensor=2),
    MeshShape(fsdp=2, tensor=4),
    MeshShape(data=2, fsdp=4),
    MeshShape(data=4, tensor=2),
    MeshShape(data=2, fsdp=2, tensor=2),
]
# A large epsilon: Adam would otherwise follow the rounding of gradients that are nearly zero.
OPTIMIZER = OptimizerConfig(epsilon=1e-3, clip_norm=0.5)
RATE = functools.partial(
    WarmupCosine(peak=1e-2, end=1e-3, warmup_steps=1, decay_steps=8).rate,
    first_step=0,
    num_steps=NUM_STEPS,
)
Z_LOSS = 1e-3


def mesh_of(shape):
    return make_mesh(shape, jax.devices()[: shape.data * abs(shape.fsdp) * shape.tensor])


def make_run(config, **fields):
    fields = {"compute_dtype": "float32", "vocab_chunk": 40, "remat": "none", **fields}
    return RunConfig(output="", model=config, tokenizer="", stages=(), checkpoint=None, **fields)


def batches(micro_batches):
    """Packed rows of one to three documents and some padding, the same for any `micro_batches`."""
    rng = np.random.default_rng(0)
    shape = (NUM_STEPS, micro_batches, ROWS // micro_batches, LENGTH + 1)
    tokens = rng.integers(0, CONFIG.vocab_size, shape).astype(np.int32)
    segments = np.sort(rng.integers(1, 4, shape), axis=-1).astype(np.int32)
    segments.reshape(NUM_STEPS, ROWS, -1)[:, -1, LENGTH // 2 :] = 0
    inputs, following = segments[..., :-1], segments[..., 1:]
    return {
        "tokens": tokens[..., :-1],
        "targets": tokens[..., 1:],
        "segment_ids": inputs,
        "loss_mask": (inputs == following) & (inputs != 0),
    }


def first_gradient(shape, run):
    """Mean loss of the first batch, and its gradient."""
    mesh = mesh_of(shape)
    with on_mesh(mesh):
        params = init_sharded_params(run.model, jax.random.key(0), mesh)
        network = make_network(run, run.model, mesh)
        batch = {name: values[0] for name, values in batches(1).items()}
        batch = jax.tree.map(lambda x: x[0], jax.device_put(batch, batch_sharding(mesh)))

        def loss(params):
            sums = CrossEntropy(Z_LOSS).sums(params, {}, batch, network=network)
            return sums.total / jnp.sum(batch["loss_mask"])

        return jax.device_get(jax.jit(jax.value_and_grad(loss))(params))


def make_step(shape, run):
    """The step of training on a mesh, and the abstract state that it takes."""
    mesh = mesh_of(shape)
    abstract = abstract_state(run.model, make_optimizer(OPTIMIZER), mesh, dtype=jnp.float32)
    network = make_network(run, run.model, mesh)
    step = make_train_step(network, OPTIMIZER, RATE, loss=CrossEntropy(Z_LOSS), state=abstract)
    return step, abstract


def train(shape, run, micro_batches):
    """A few steps: losses and gradient norms, and the parameters after them."""
    mesh = mesh_of(shape)
    with on_mesh(mesh):
        step, abstract = make_step(shape, run)
        shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
        params = init_sharded_params(run.model, jax.random.key(0), mesh)
        state = jax.device_put(new_state(params, make_optimizer(OPTIMIZER)), shardings)
        history = []
        for index in range(NUM_STEPS):
            batch = {name: values[index] for name, values in batches(micro_batches).items()}
            state, metrics = step(state, {}, jax.device_put(batch, batch_sharding(mesh)))
            history.append([float(metrics[name]) for name in ("loss", "gradient_norm", "tokens")])
        return np.array(history), jax.device_get(state.params)


def largest_error(tree, expected):
    """Of all leaves, relative to the largest element of each."""
    pairs = zip(jax.tree.leaves(tree), jax.tree.leaves(expected), strict=True)
    return max(np.abs(leaf - other).max() / np.abs(other).max() for leaf, other in pairs)


@functools.cache
def gradient_on_one(run):
    return first_gradient(ONE, run)


@functools.cache
def trained_on_one(run):
    return train(ONE, run, micro_batches=1)


# Sums of float32 in another order. Losses, relative: measured 4e-7. Of each leaf's largest,
# gradients: 1.1e-6; parameters after the steps: 8e-7.
LOSS_TOLERANCE, GRADIENT_TOLERANCE, PARAMETER_TOLERANCE = 2e-6, 5e-6, 5e-6


@pytest.mark.parametrize("shape", MESHES, ids=str)
def test_loss_and_gradient_are_those_of_one_device(shape):
    """Of every parameter; tied and untied take turns, and so do the policies of recomputing."""
    turn = MESHES.index(shape)
    config = dataclasses.replace(CONFIG, tied_embeddings=turn % 2 == 0)
    loss, gradient = first_gradient(
        shape, make_run(config, remat=REMAT_POLICIES[turn % len(REMAT_POLICIES)])
    )
    expected_loss, expected = gradient_on_one(make_run(config))
    assert jax.tree.structure(gradient) == jax.tree.structure(expected)
    np.testing.assert_allclose(loss, expected_loss, rtol=LOSS_TOLERANCE)
    assert largest_error(gradient, expected) < GRADIENT_TOLERANCE


@pytest.mark.parametrize(
    "shape, micro_batches",
    [
        (MeshShape(fsdp=8), 1),
        (MeshShape(data=2, fsdp=4), 2),
        (MeshShape(data=2, fsdp=2, tensor=2), 2),
    ],
    ids=str,
)
def test_steps_in_micro_batches_are_those_of_one_device_without(shape, micro_batches):
    run = make_run(CONFIG)
    history, params = train(shape, run, micro_batches)
    expected_history, expected = trained_on_one(run)
    np.testing.assert_allclose(history, expected_history, rtol=LOSS_TOLERANCE)
    assert largest_error(params, expected) < PARAMETER_TOLERANCE


def test_in_bfloat16_a_mesh_is_as_far_from_float32_as_one_device_is():
    """bfloat16 has 8 bits: a mesh that rounds elsewhere than one device differs from it by the
    rounding of either, so both are held to the float32 gradient. A sum in bfloat16 over devices
    would show as a multiple of what one device has."""
    run = make_run(CONFIG, compute_dtype="bfloat16")
    loss, exact = gradient_on_one(make_run(CONFIG))
    one_loss, one = gradient_on_one(run)
    mesh_loss, on_mesh = first_gradient(MeshShape(data=2, fsdp=2, tensor=2), run)
    assert abs(mesh_loss / loss - 1) < 2e-3 and abs(one_loss / loss - 1) < 2e-3
    for leaf, alone, other in zip(*map(jax.tree.leaves, (on_mesh, one, exact)), strict=True):
        assert leaf.dtype == np.float32
        error, usual = (np.linalg.norm(value - other) for value in (leaf, alone))
        assert error < 1.5 * usual + 1e-3 * np.linalg.norm(other)


def lower(shape, run, micro_batches=1):
    """The step of training, compiled but not run."""
    mesh = mesh_of(shape)
    with on_mesh(mesh):
        step, abstract = make_step(shape, run)
        sharding = batch_sharding(mesh)
        batch = {
            name: jax.ShapeDtypeStruct(values.shape[1:], values.dtype, sharding=sharding)
            for name, values in batches(micro_batches).items()
        }
        return step.lower(abstract, {}, batch).compile()


def test_each_device_has_its_part_of_everything():
    """Parameters and moments: an eighth of each, as every width is a multiple of eight."""
    shape = MeshShape(fsdp=8)
    mesh = mesh_of(shape)
    with on_mesh(mesh):
        _, abstract = make_step(shape, make_run(CONFIG))
        params = init_sharded_params(CONFIG, jax.random.key(0), mesh)
    for leaf in jax.tree.leaves(params):
        assert {shard.data.size for shard in leaf.addressable_shards} == {leaf.size // 8}
    moments = [leaf for leaf in jax.tree.leaves(abstract.optimizer_state) if leaf.ndim]
    assert len(moments) == 2 * len(jax.tree.leaves(params))
    for leaf in moments:
        assert np.prod(leaf.sharding.shard_shape(leaf.shape)) * 8 == leaf.size


def test_the_step_holds_nothing_whole():
    """Read in the program of one device: no array has all rows, and the residual stream, which
    the backward pass keeps of each layer, has its part of the tokens, too."""
    shape = MeshShape(data=2, fsdp=2, tensor=2)
    compiled = lower(shape, make_run(CONFIG, remat="full"))
    shapes = set(re.findall(r"f32\[([\d,]+)\]", compiled.as_text()))
    rows, width = ROWS // 4, CONFIG.model_dim
    assert f"{CONFIG.num_layers},{rows},{LENGTH // 2},{width}" in shapes  # what remat keeps
    assert f"{CONFIG.num_layers},{rows},{LENGTH},{width}" not in shapes
    whole = [text for text in shapes if text.endswith(f"{ROWS},{LENGTH},{width}")]
    assert not whole, f"every device has the activations of all rows: {whole}"


def test_a_device_needs_less_memory_where_there_are_more():
    """With as many rows in all, an eighth of the state and of the activations."""
    run = make_run(CONFIG)
    one, eight = (lower(shape, run).memory_analysis() for shape in (ONE, MeshShape(fsdp=8)))
    batch = sum(values[0].nbytes for values in batches(1).values())
    state = one.argument_size_in_bytes - batch
    assert eight.argument_size_in_bytes < state / 8 + batch / 8 + 200
    # Parameters are gathered where they are used, so this is not an eighth quite.
    assert eight.temp_size_in_bytes < one.temp_size_in_bytes / 3
