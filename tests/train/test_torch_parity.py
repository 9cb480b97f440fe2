"""A step against transformers and torch's AdamW: same weights, batches and numbers."""

import copy
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from transformers import LlamaForCausalLM

from llama_jax.checkpoints.load import load_checkpoint
from llama_jax.checkpoints.save import save_checkpoint
from llama_jax.config import TINY
from llama_jax.model import init_params
from sharding.mesh import MeshShape, make_mesh
from sharding.placement import batch_sharding, on_mesh
from train.config import OptimizerConfig, RunConfig
from train.job import make_network
from train.losses.cross_entropy import CrossEntropy
from train.optimizer import make_optimizer
from train.schedules import WarmupCosine
from train.state import abstract_state, new_state
from train.step import make_train_step

pytestmark = pytest.mark.usefixtures("quick_compilation")

# We compute in float32, torch in float64, so the differences are our rounding. Losses and gradient
# norms, relative: measured 3e-7. Gradients, of each leaf's largest: measured 2e-6. Parameters, of
# the way that they could have moved: measured 1e-5 for all but one in a thousand, and 1.4e-4 for
# the worst, where a gradient is near zero and Adam, dividing by its size, follows its rounding.
LOSS_TOLERANCE = 2e-6
GRADIENT_TOLERANCE = 1e-5
PARAMETER_TOLERANCE, WORST_PARAMETER_TOLERANCE = 5e-5, 5e-4
OPTIMIZER = OptimizerConfig(weight_decay=0.1, clip_norm=0.5)
SCHEDULE = WarmupCosine(peak=3e-3, end=3e-5, warmup_steps=5, decay_steps=20)
NUM_STEPS, ROWS, LENGTH = 20, 4, 48


def packed_batches():
    """Rows of one to three documents, every step another batch."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, TINY.vocab_size, (NUM_STEPS, ROWS, LENGTH + 1)).astype(np.int32)
    segments = np.sort(rng.integers(1, 4, tokens.shape), axis=-1).astype(np.int32)
    return tokens, segments


def our_batch(tokens, segments):
    return {
        "tokens": tokens[:, :-1],
        "targets": tokens[:, 1:],
        "segment_ids": segments[:, :-1],
        "loss_mask": segments[:, 1:] == segments[:, :-1],
    }


def zip_leaves(tree, other):
    """Name, leaf and the leaf of `other` at the same place."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        same = functools.reduce(lambda node, key: node[key.key], path, other)
        yield jax.tree_util.keystr(path), np.asarray(leaf), np.asarray(same)


def make_run(config):
    return RunConfig(
        output="", model=config, tokenizer="", stages=(), checkpoint=None, compute_dtype="float32"
    )


def our_gradient(params, config, tokens, segments):
    """Of the mean loss of the first batch."""
    mesh = make_mesh(MeshShape(), jax.devices()[:1])
    batch = our_batch(tokens[0], segments[0])
    network = make_network(make_run(config), config, mesh)
    with on_mesh(mesh):
        return jax.jit(
            jax.grad(
                lambda params: (
                    CrossEntropy().sums(params, {}, batch, network=network).total
                    / batch["loss_mask"].sum()
                )
            )
        )(params)


def our_run(params, config, tokens, segments, *, micro_batches):
    """Losses, gradient norms and final parameters."""
    mesh = make_mesh(MeshShape(), jax.devices()[:1])
    rate = functools.partial(SCHEDULE.rate, first_step=0, num_steps=NUM_STEPS)
    with on_mesh(mesh):
        optimizer = make_optimizer(OPTIMIZER)
        abstract = abstract_state(config, optimizer, mesh, dtype=jnp.float32)
        shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
        state = jax.device_put(new_state(jax.tree.map(jnp.copy, params), optimizer), shardings)
        network = make_network(make_run(config), config, mesh)
        step = make_train_step(network, OPTIMIZER, rate, loss=CrossEntropy(), state=abstract)
        history = []
        for row_tokens, row_segments in zip(tokens, segments, strict=True):
            shape = (micro_batches, ROWS // micro_batches, LENGTH)
            batch = our_batch(row_tokens, row_segments)
            batch = {name: value.reshape(shape) for name, value in batch.items()}
            batch = jax.device_put(batch, batch_sharding(mesh))
            state, metrics = step(state, {}, batch)
            history.append((float(metrics["loss"]), float(metrics["gradient_norm"])))
    return np.array(history), state.params


def torch_run(folder, tokens, segments):
    """The same with transformers and torch, in float64."""
    model = LlamaForCausalLM.from_pretrained(
        folder, dtype=torch.float64, attn_implementation="eager"
    )
    decayed = [p for p in model.parameters() if p.ndim > 1]
    rest = [p for p in model.parameters() if p.ndim == 1]
    optimizer = torch.optim.AdamW(
        [
            {"params": decayed, "weight_decay": OPTIMIZER.weight_decay},
            {"params": rest, "weight_decay": 0.0},
        ],
        betas=(OPTIMIZER.beta1, OPTIMIZER.beta2),
        eps=OPTIMIZER.epsilon,
    )
    history = []
    for step, (row_tokens, row_segments) in enumerate(zip(tokens, segments, strict=True)):
        row_tokens, row_segments = torch.tensor(row_tokens).long(), torch.tensor(row_segments)
        inputs, documents = row_tokens[:, :-1], row_segments[:, :-1]
        index = torch.arange(LENGTH)
        seen = (documents[:, :, None] == documents[:, None]) & (index[:, None] >= index)
        begins = torch.argmax((documents[:, :, None] == documents[:, None]).int(), dim=-1)
        mask = torch.where(seen, 0.0, float("-inf")).double()[:, None]
        scores = model(inputs, attention_mask=mask, position_ids=index - begins).logits
        losses = torch.nn.functional.cross_entropy(
            scores.flatten(0, 1), row_tokens[:, 1:].flatten(), reduction="none"
        )
        counts = (row_segments[:, 1:] == documents).flatten()
        loss = losses[counts].sum() / counts.sum()
        optimizer.zero_grad()
        loss.backward()
        if step == 0:
            gradient = copy.deepcopy(model)
            for weight, original in zip(gradient.parameters(), model.parameters(), strict=True):
                weight.data = original.grad.clone()
            gradient.float().save_pretrained(folder / "gradient")
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), OPTIMIZER.clip_norm)
        for group in optimizer.param_groups:
            group["lr"] = float(SCHEDULE.rate(step, first_step=0, num_steps=NUM_STEPS))
        optimizer.step()
        history.append((loss.item(), norm.item()))
    model.float().save_pretrained(folder / "after")
    return np.array(history)


@pytest.fixture(scope="module", params=[False, True], ids=["head", "tied"])
def problem(request, tmp_path_factory):
    """Config, weights, the folder of what torch made of them, and its losses and norms."""
    config = dataclasses.replace(TINY, tied_embeddings=request.param)
    params = init_params(config, jax.random.key(0))
    folder = tmp_path_factory.mktemp("torch") / "start"
    save_checkpoint(folder, config, params, format="hf")
    return config, params, folder, torch_run(folder, *packed_batches())


@pytest.mark.parametrize("micro_batches", [1, 2])
def test_twenty_steps_equal_those_of_torch(problem, micro_batches):
    config, params, folder, theirs = problem
    ours, trained = our_run(params, config, *packed_batches(), micro_batches=micro_batches)
    np.testing.assert_allclose(ours, theirs, rtol=LOSS_TOLERANCE)
    _, expected = load_checkpoint(folder / "after", dtype="float32")
    way = sum(float(SCHEDULE.rate(i, first_step=0, num_steps=NUM_STEPS)) for i in range(NUM_STEPS))
    for name, leaf, other in zip_leaves(trained, expected):
        difference = np.abs(leaf - other) / way
        assert difference.max() < WORST_PARAMETER_TOLERANCE, name
        assert np.quantile(difference, 0.999) < PARAMETER_TOLERANCE, name


def test_the_first_gradient_equals_that_of_torch(problem):
    config, params, folder, _ = problem
    _, expected = load_checkpoint(folder / "gradient", dtype="float32")
    ours = our_gradient(params, config, *packed_batches())
    for name, leaf, other in zip_leaves(ours, expected):
        assert np.abs(leaf - other).max() < GRADIENT_TOLERANCE * np.abs(other).max(), name
