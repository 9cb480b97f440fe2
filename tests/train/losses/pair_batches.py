"""Pairs of random answers, a small model, and batches of them: a pair a row, or packed; and whether
two results are the same."""

import dataclasses
from typing import NamedTuple

import jax
import numpy as np
import pytest

from llama_jax.config import TINY
from llama_jax.model import init_params
from sharding.mesh import MeshShape, make_mesh
from sharding.placement import batch_sharding, rows_sharding
from train.config import RunConfig
from train.job import make_network

# Sums of float32 in another order: measured 3e-7 of the loss, 5e-6 of each leaf's largest gradient.
TOLERANCE, GRADIENT_TOLERANCE = 2e-6, 1e-5
CONFIG = dataclasses.replace(TINY, vocab_size=64, model_dim=32, head_dim=8, feed_forward_dim=64)


class Pair(NamedTuple):
    """Token ids; the last one of an answer ends its turn."""

    prompt: list[int]
    chosen: list[int]
    rejected: list[int]


def make_pairs(count: int) -> list[Pair]:
    """Pairs of all kinds of lengths, other tokens each."""
    rng = np.random.default_rng(7)

    def tokens(most: int) -> list[int]:
        return rng.integers(5, CONFIG.vocab_size, rng.integers(2, most)).tolist()

    return [Pair(tokens(6), tokens(9), tokens(7)) for _ in range(count)]


def pack(
    pairs: list[Pair],
    *,
    pairs_per_row: int,
    row_length: int,
    rows: int | None = None,
    masks_end: bool = False,
) -> dict[str, np.ndarray]:
    """A micro-batch `[B, T]` of rows that have `pairs_per_row` pairs each, the last maybe fewer.

    Args:
      rows: B; rows without pairs fill up.
      masks_end: whether the last token of an answer is left out of `loss_mask`.
    """
    groups = [pairs[i : i + pairs_per_row] for i in range(0, len(pairs), pairs_per_row)]
    shape = (rows or len(groups), row_length + 1)
    tokens, segments = np.zeros((2, *shape), np.int32)
    counted, said = np.zeros((2, *shape), bool)
    for row, group in enumerate(groups):
        end = 0
        for k, pair in enumerate(group):
            for side, answer in enumerate((pair.chosen, pair.rejected)):
                ids = pair.prompt + answer
                start, end = end, end + len(ids)
                tokens[row, start:end], segments[row, start:end] = ids, 2 * k + 1 + side
                said[row, start + len(pair.prompt) : end] = True
                counted[row, start + len(pair.prompt) : end - masks_end] = True
    return {
        "tokens": tokens[:, :-1],
        "targets": tokens[:, 1:],
        "segment_ids": segments[:, :-1],
        "loss_mask": counted[:, 1:],
        "nll_mask": said[:, 1:],
    }


def make_policies() -> tuple[dict, dict]:
    """Parameters of a policy and of a reference, far enough apart to tell."""
    return tuple(
        jax.tree.map(lambda leaf: 4 * leaf, init_params(CONFIG, jax.random.key(seed)))
        for seed in (0, 1)
    )


def network_on(mesh, config=CONFIG):
    """The model in float32 on `mesh`."""
    run = RunConfig(
        output="", model=config, tokenizer="", stages=(), checkpoint=None,
        compute_dtype="float32", remat="none",
    )  # fmt: skip
    return make_network(run, config, mesh)


def one_device():
    return make_mesh(MeshShape(), jax.devices()[:1])


def value_and_gradient(loss, network):
    """Compiled: `(params, frozen, batch)` of a micro-batch to its mean loss, metrics, gradients."""

    def run(params, frozen, batch):
        def mean(params):
            sums = loss.sums(params, frozen, batch, network=network)
            return sums.total / loss.count(batch), sums.metrics

        return jax.value_and_grad(mean, has_aux=True)(params)

    return jax.jit(run)


def place(batch, mesh):
    """A micro-batch `[B, ...]` on `mesh`, as the step has it."""
    sharding = batch_sharding(mesh)
    length = batch["tokens"].shape[1]
    return {
        name: jax.device_put(
            values[None], sharding if values.shape[1:2] == (length,) else rows_sharding(sharding)
        )[0]
        for name, values in batch.items()
    }


def assert_same(result, expected):
    """Loss, metrics and gradients."""
    (value, metrics, gradients), (value_, metrics_, gradients_) = result, expected
    assert value == pytest.approx(value_, rel=TOLERANCE)
    assert metrics == pytest.approx(metrics_, rel=1e-5, abs=1e-6)
    for (path, leaf), other in zip(
        jax.tree_util.tree_leaves_with_path(gradients), jax.tree.leaves(gradients_), strict=True
    ):
        error = np.abs(leaf - other).max()
        assert error <= GRADIENT_TOLERANCE * np.abs(other).max(), jax.tree_util.keystr(path)
