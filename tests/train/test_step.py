"""One step: what it refuses, what micro-batches change (nothing), what decays, which rate."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from llama_jax.config import TINY
from llama_jax.model import abstract_params, init_params, logits
from sharding.mesh import MeshShape, make_mesh
from sharding.placement import batch_sharding, on_mesh
from train.config import OptimizerConfig, RunConfig
from train.job import make_network
from train.losses.cross_entropy import CrossEntropy
from train.optimizer import decay_mask, make_optimizer
from train.schedules import Linear, WarmupCosine
from train.state import abstract_state, new_state
from train.step import make_train_step

pytestmark = pytest.mark.usefixtures("quick_compilation")

CONFIG = dataclasses.replace(TINY, vocab_size=64, model_dim=32, head_dim=8, feed_forward_dim=64)
ROWS, LENGTH, NUM_STEPS = 8, 16, 6
OPTIMIZER = OptimizerConfig(epsilon=1e-3, spike_factor=3.0)
MESH = make_mesh(MeshShape(), jax.devices()[:1])
NETWORK = make_network(
    RunConfig(
        output="", model=CONFIG, tokenizer="", stages=(), checkpoint=None, compute_dtype="float32"
    ),
    CONFIG,
    MESH,
)


def make_batch(micro_batches=1):
    """One document a row but for the last row, which is half padding: micro-batches differ in how
    many of their tokens count."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, CONFIG.vocab_size, (ROWS, LENGTH + 1)).astype(np.int32)
    segments = np.ones_like(tokens)
    segments[-1, LENGTH // 4 :] = 0
    batch = {
        "tokens": tokens[:, :-1],
        "targets": tokens[:, 1:],
        "segment_ids": segments[:, :-1],
        "loss_mask": segments[:, 1:] > 0,
    }
    shape = (micro_batches, ROWS // micro_batches, LENGTH)
    batch = {name: value.reshape(shape) for name, value in batch.items()}
    return jax.device_put(batch, batch_sharding(MESH))


@functools.cache
def step_and_state(z_loss=0.0):
    """The compiled step with a rate of 0.01, and the abstract state."""
    optimizer = make_optimizer(OPTIMIZER)
    abstract = abstract_state(CONFIG, optimizer, MESH, dtype=jnp.float32)
    rate = functools.partial(Linear(1e-2, 1e-2).rate, first_step=0, num_steps=NUM_STEPS)
    loss = CrossEntropy(z_loss)
    step = make_train_step(NETWORK, OPTIMIZER, rate, loss=loss, state=abstract)
    return step, abstract


def make_state(**fields):
    """A new state of the same weights each time, with `fields` replaced."""
    optimizer = make_optimizer(OPTIMIZER)
    state = new_state(init_params(CONFIG, jax.random.key(0)), optimizer)
    state = dataclasses.replace(state, **fields)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, step_and_state()[1])
    return jax.device_put(state, shardings)


def take(state, batch, z_loss=0.0):
    """The state after a step, which the step before it does not lose, and the metrics."""
    with on_mesh(MESH):
        state, metrics = step_and_state(z_loss)[0](jax.tree.map(jnp.copy, state), {}, batch)
    return state, {name: float(value) for name, value in metrics.items()}


def same_bits(tree, other):
    pairs = zip(jax.tree.leaves(tree), jax.tree.leaves(other), strict=True)
    return all(np.asarray(a).tobytes() == np.asarray(b).tobytes() for a, b in pairs)


def with_weight(state, value):
    """`state` with one weight of the head replaced."""
    head = state.params["head"].at[0, 0].set(value)
    return dataclasses.replace(state, params={**state.params, "head": head})


def assert_refused(before, after, metrics, *, skipped, in_a_row):
    assert metrics["skipped"] == 1.0 and metrics["skipped_in_a_row"] == in_a_row
    for name in ("params", "optimizer_state", "norm_average"):
        assert same_bits(getattr(before, name), getattr(after, name)), name
    assert (after.step, after.skipped, after.skipped_in_a_row) == (
        before.step + 1, skipped, in_a_row,
    )  # fmt: skip


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e38])
def test_a_step_that_is_not_finite_changes_nothing_but_the_counters(value):
    good, _ = take(make_state(), make_batch())
    state = with_weight(good, value)  # of 1e38: the loss is finite perhaps, the norm is not
    after, metrics = take(state, make_batch())
    assert not np.isfinite(metrics["gradient_norm"]) or not np.isfinite(metrics["loss"])
    assert_refused(state, after, metrics, skipped=1, in_a_row=1)
    again, metrics = take(after, make_batch())
    assert_refused(after, again, metrics, skipped=2, in_a_row=2)

    # A step that is taken ends the row, and is the one that would have been without them.
    mended = dataclasses.replace(again, params=good.params)
    expected, _ = take(good, make_batch())
    taken, metrics = take(mended, make_batch())
    assert metrics["skipped"] == 0.0 and int(taken.skipped_in_a_row) == 0
    assert int(taken.skipped) == 2 and int(taken.step) == 4
    assert same_bits(taken.params, expected.params)
    assert same_bits(taken.optimizer_state, expected.optimizer_state)


def test_a_leap_of_the_gradient_norm_is_skipped():
    _, metrics = take(make_state(), make_batch())
    norm = metrics["gradient_norm"]
    spike = make_state(norm_average=jnp.float32(norm / 3.01))
    after, metrics = take(spike, make_batch())
    assert_refused(spike, after, metrics, skipped=1, in_a_row=1)
    assert metrics["gradient_norm"] == norm and metrics["update_norm"] > 0
    usual = make_state(norm_average=jnp.float32(norm / 2.99))
    after, metrics = take(usual, make_batch())
    assert metrics["skipped"] == 0.0
    assert float(after.norm_average) == pytest.approx(0.99 * norm / 2.99 + 0.01 * norm)


def test_the_first_norm_is_the_mean_and_nothing_is_a_leap_over_it():
    after, metrics = take(make_state(), make_batch())
    assert metrics["skipped"] == 0.0
    assert float(after.norm_average) == pytest.approx(metrics["gradient_norm"])


def test_micro_batches_change_nothing_but_rounding():
    """Also not where one has fewer tokens that count: the loss is of tokens, not of micro-batches.
    float32 sums in another order: measured 7e-7 of each leaf's largest."""
    expected, numbers = take(make_state(), make_batch())
    for micro_batches in (2, 4, 8):
        after, metrics = take(make_state(), make_batch(micro_batches))
        assert metrics["tokens"] == numbers["tokens"] == ROWS * LENGTH - 13
        for name in ("loss", "z_loss", "gradient_norm", "update_norm"):
            assert metrics[name] == pytest.approx(numbers[name], rel=2e-6), name
        for leaf, other in zip(
            jax.tree.leaves(after.params), jax.tree.leaves(expected.params), strict=True
        ):
            assert np.abs(leaf - other).max() <= 3e-6 * np.abs(other).max()


def test_the_gradient_with_z_loss_is_that_of_the_formula():
    """Against logits in full: mean of `-log p + z log(Z)^2`. float32: measured 5e-7 of each leaf's
    largest."""
    weight = 0.05
    params = init_params(CONFIG, jax.random.key(0))
    batch = {name: value[0] for name, value in make_batch().items()}

    def dense(params):
        hidden = NETWORK.hidden(params, batch["tokens"], batch["segment_ids"])
        scores = logits(params, hidden, config=CONFIG)
        normaliser = jax.nn.logsumexp(scores, axis=-1)
        target = jnp.take_along_axis(scores, batch["targets"][..., None], axis=-1)[..., 0]
        losses = normaliser - target + weight * normaliser**2
        return jnp.sum(losses * batch["loss_mask"])

    def ours(params):
        return CrossEntropy(weight).sums(params, {}, batch, network=NETWORK).total

    with on_mesh(MESH):
        expected, gradient = jax.jit(jax.value_and_grad(dense))(params)
        loss, ours_gradient = jax.jit(jax.value_and_grad(ours))(params)
    assert float(loss) == pytest.approx(float(expected), rel=1e-6)
    for leaf, other in zip(jax.tree.leaves(ours_gradient), jax.tree.leaves(gradient), strict=True):
        assert np.abs(leaf - other).max() <= 3e-6 * np.abs(other).max()


def test_z_loss_is_in_the_gradient_and_not_in_the_reported_loss():
    _, without = take(make_state(), make_batch())
    _, with_it = take(make_state(), make_batch(), z_loss=0.05)
    assert with_it["loss"] == pytest.approx(without["loss"], rel=1e-6)
    assert with_it["z_loss"] == pytest.approx(without["z_loss"], rel=1e-6)
    assert abs(with_it["gradient_norm"] / without["gradient_norm"] - 1) > 0.01


@pytest.mark.parametrize("tied", [False, True])
def test_every_parameter_is_known_to_decay_or_not(tied):
    params = abstract_params(dataclasses.replace(CONFIG, tied_embeddings=tied))
    mask = decay_mask(params)
    assert jax.tree.structure(mask) == jax.tree.structure(params)
    for path, decays in jax.tree_util.tree_leaves_with_path(mask):
        assert decays == ("norm" not in jax.tree_util.keystr(path)), path


def test_an_unknown_parameter_is_an_error():
    params = {"blocks": {"attention": {"bias": jnp.zeros(2)}}}
    with pytest.raises(ValueError, match="bias.*not known to decay or not"):
        make_optimizer(OPTIMIZER).init(params) and decay_mask(params)


def test_matrices_decay_and_scales_do_not():
    """Where the gradient is zero, a parameter moves by `-rate * decay * itself`, or not at all."""
    params = jax.tree.map(jnp.ones_like, init_params(CONFIG, jax.random.key(0)))
    optimizer = make_optimizer(OptimizerConfig(weight_decay=0.25))
    zeros = jax.tree.map(jnp.zeros_like, params)
    directions, _ = optimizer.update(zeros, optimizer.init(params), params)
    for path, leaf in jax.tree_util.tree_leaves_with_path(directions):
        np.testing.assert_array_equal(leaf, 0.0 if path[-1].key == "scale" else 0.25)


@pytest.mark.parametrize("step", [0, 1, 8, 9, 10, 11, 50, 99, 100, 101, 1000])
def test_warmup_and_cosine_are_those_of_optax(step):
    """optax begins at `init_value`; ours at the first of the warm-up's steps, so that the first
    step moves: its step is our step + 1 while warming up. float32: 3e-7."""
    ours = WarmupCosine(peak=3e-3, end=3e-5, warmup_steps=10, decay_steps=100)
    theirs = optax.warmup_cosine_decay_schedule(0.0, 3e-3, 10, 100, 3e-5)
    shifted = step + 1 if step < 10 else step
    rate = ours.rate(jnp.int32(step), first_step=77, num_steps=5)
    np.testing.assert_allclose(rate, theirs(shifted), rtol=1e-6)
    assert rate.dtype == jnp.float32


def test_without_warmup_the_cosine_begins_at_its_peak():
    rate = WarmupCosine(peak=1.0, end=0.5, warmup_steps=0, decay_steps=4)
    rates = [float(rate.rate(step, first_step=0, num_steps=1)) for step in range(6)]
    np.testing.assert_allclose(rates, [1.0, 0.926777, 0.75, 0.573223, 0.5, 0.5], rtol=1e-5)


def test_a_line_counts_the_steps_of_its_stage():
    rate = functools.partial(Linear(1.0, 0.0).rate, first_step=100, num_steps=4)
    rates = [float(rate(jnp.int32(step))) for step in (99, 100, 101, 103, 104, 105)]
    assert rates == [1.0, 1.0, 0.75, 0.25, 0.0, 0.0]
