"""The reward model's loss against torch: several answers of a prompt in one row, any mesh."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
import torch
from transformers import LlamaForSequenceClassification

from llama_jax.checkpoints.load import load_checkpoint
from llama_jax.checkpoints.save import save_checkpoint
from llama_jax.errors import InputError
from llama_jax.model import init_params, output_head, rewards
from sharding.mesh import MeshShape, make_mesh
from sharding.placement import on_mesh, param_shardings
from train.losses.bradley_terry import BradleyTerry

from .pair_batches import CONFIG, assert_same, network_on, one_device, place, value_and_gradient

pytestmark = pytest.mark.usefixtures("quick_compilation")

REWARD_CONFIG = dataclasses.replace(CONFIG, reward_head=True)
PARAMS = jax.tree.map(lambda leaf: 4 * leaf, init_params(REWARD_CONFIG, jax.random.key(0)))
LENGTH, ANSWERS = 40, 5
# Groups of a row: prompt length, then (length, rank) of each answer in the order of the row.
ROWS = [
    [(5, [(4, 1), (6, 0), (3, 2)]), (4, [(5, 1), (7, 0)])],
    [(3, [(9, 0), (5, 1)])],
    [(6, [(4, 1), (4, 1), (6, 0)])],
    [],
]


def make_batch():
    """A micro-batch `[B, T]`."""
    rng = np.random.default_rng(3)
    shape = (len(ROWS), LENGTH)
    tokens, segments = np.zeros((2, *shape), np.int32)
    ends, groups, ranks = np.full((3, len(ROWS), ANSWERS), -1, np.int32)
    for row, row_groups in enumerate(ROWS):
        at = answer = 0
        for number, (prompt, answers) in enumerate(row_groups):
            start, at = at, at + prompt
            for length, rank in answers:
                at += length
                ends[row, answer], groups[row, answer], ranks[row, answer] = at - 1, number, rank
                answer += 1
            tokens[row, start:at] = rng.integers(5, CONFIG.vocab_size, at - start)
            segments[row, start:at] = number + 1
    return {
        "tokens": tokens,
        "targets": tokens,
        "segment_ids": segments,
        "answer_ends": ends,
        "answer_groups": groups,
        "answer_ranks": ranks,
    }


@functools.cache
def compiled(mesh):
    return value_and_gradient(BradleyTerry(), network_on(mesh, REWARD_CONFIG))


def run(batch, mesh):
    with on_mesh(mesh):
        params = jax.device_put(PARAMS, param_shardings(REWARD_CONFIG, mesh))
        (value, metrics), gradients = compiled(mesh)(params, {}, place(batch, mesh))
    metrics = {name: float(top / bottom) for name, (top, bottom) in metrics.items()}
    return float(value), metrics, jax.device_get(gradients)


@pytest.fixture(scope="module")
def torch_model(tmp_path_factory):
    """transformers' classifier with our weights, in float64."""
    folder = tmp_path_factory.mktemp("reward")
    save_checkpoint(folder / "hf", REWARD_CONFIG, PARAMS, format="hf")
    return LlamaForSequenceClassification.from_pretrained(folder / "hf").double(), folder


def torch_loss(model, batch):
    """Mean over all comparisons, each written down on its own; each group a sequence of its own."""
    losses = []
    for row in range(len(ROWS)):
        segments = batch["segment_ids"][row]
        for segment in range(1, segments.max() + 1):
            (places,) = np.nonzero(segments == segment)
            tokens = torch.tensor(batch["tokens"][row, places]).long()[None]
            scores = model.score(model.model(tokens).last_hidden_state)[0, :, 0]
            answers = [
                (scores[batch["answer_ends"][row, e] - places[0]], batch["answer_ranks"][row, e])
                for e in range(ANSWERS)
                if batch["answer_groups"][row, e] == segment - 1
            ]
            losses += [
                -torch.nn.functional.logsigmoid(better - worse)
                for better, rank in answers
                for worse, other in answers
                if rank < other
            ]
    return torch.stack(losses).mean(), len(losses)


def test_loss_and_gradient_are_those_of_torch(torch_model):
    model, folder = torch_model
    batch = make_batch()
    expected, count = torch_loss(model, batch)
    expected.backward()
    gradient = LlamaForSequenceClassification(model.config).double()
    for weight, original in zip(gradient.parameters(), model.parameters(), strict=True):
        weight.data = original.grad.clone()
    gradient.float().save_pretrained(folder / "gradient")
    _, theirs = load_checkpoint(folder / "gradient", dtype="float32")
    value, metrics, gradients = run(batch, one_device())
    # Ours is float32: measured 2e-7 of the loss, 4e-6 of each leaf's largest gradient.
    assert value == pytest.approx(expected.item(), rel=2e-6) == metrics["loss"]
    assert float(BradleyTerry().count(batch)) == count == 3 + 1 + 1 + 2
    for (path, leaf), other in zip(
        jax.tree_util.tree_leaves_with_path(gradients), jax.tree.leaves(theirs), strict=True
    ):
        error = np.abs(leaf - np.asarray(other)).max()
        assert error <= 1e-5 * np.abs(other).max(), jax.tree_util.keystr(path)
    assert metrics["margin"] == pytest.approx(
        metrics["reward_chosen"] - metrics["reward_rejected"], rel=1e-4
    )
    assert 0 < metrics["accuracy"] < 1


def test_a_mesh_changes_nothing():
    mesh = make_mesh(MeshShape(fsdp=4, tensor=2), jax.devices()[:8])
    assert_same(run(make_batch(), mesh), run(make_batch(), one_device()))


def test_the_order_of_the_answers_of_a_batch_changes_nothing():
    batch = make_batch()
    order = np.array([3, 0, 4, 1, 2])
    shuffled = {
        name: values[:, order] if name.startswith("answer_") else values
        for name, values in batch.items()
    }
    assert_same(run(shuffled, one_device()), run(batch, one_device()))


def test_a_policy_gives_no_rewards_and_a_reward_model_no_tokens():
    hidden = np.zeros((1, 2, CONFIG.model_dim), np.float32)
    with pytest.raises(InputError, match="has no reward head, so it gives no scores"):
        rewards(init_params(CONFIG, jax.random.key(0)), hidden, config=CONFIG)
    with pytest.raises(InputError, match="is a reward model, which scores texts and predicts none"):
        output_head(PARAMS, config=REWARD_CONFIG)
