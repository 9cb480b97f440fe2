"""Distillation: the formulas against numpy, and what must change nothing."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from llama_jax.errors import InputError
from llama_jax.model import forward, init_params, logits
from sharding.mesh import MeshShape, make_mesh
from sharding.placement import on_mesh, param_shardings
from train.config import RunConfig
from train.job import make_network
from train.losses.distillation import Distillation

from .pair_batches import (
    CONFIG,
    assert_same,
    make_pairs,
    one_device,
    pack,
    place,
    value_and_gradient,
)

pytestmark = pytest.mark.usefixtures("quick_compilation")

V = CONFIG.vocab_size
# Of float32 logits up to about 20, of models whose sums go in another order.
ROUNDING = 5e-5
# Deeper and wider than the student, with other heads, and of the same words.
TEACHER_CONFIG = dataclasses.replace(CONFIG, num_layers=3, model_dim=64, head_dim=16)
MESH = make_mesh(MeshShape(data=2, fsdp=2, tensor=2), jax.devices()[:8])
BATCH = {
    name: values
    for name, values in pack(make_pairs(8), pairs_per_row=1, row_length=32).items()
    if name != "nll_mask"
}


def scaled_params(config, seed):
    params = jax.jit(lambda key: init_params(config, key))(jax.random.key(seed))
    return jax.tree.map(lambda leaf: 4 * leaf, params)


STUDENT, TEACHER = scaled_params(CONFIG, 0), scaled_params(TEACHER_CONFIG, 1)


@functools.cache
def network_on(mesh):
    run = RunConfig(
        output="", model=CONFIG, tokenizer="", stages=(), checkpoint=None,
        compute_dtype="float32", remat="none", vocab_chunk=24,
    )  # fmt: skip
    return make_network(run, CONFIG, mesh, TEACHER_CONFIG)


@functools.cache
def compiled(loss, mesh):
    return value_and_gradient(loss, network_on(mesh))


def measure(loss, batch=BATCH):
    """Metrics, on one device."""
    frozen = {"reference": TEACHER} if loss.reference == "in_memory" else {}
    network = network_on(one_device())
    with on_mesh(one_device()):
        sums = jax.jit(lambda *trees: loss.sums(*trees, batch, network=network))(STUDENT, frozen)
    metrics = {name: float(top / bottom) for name, (top, bottom) in sums.metrics.items()}
    assert float(sums.total / loss.count(batch)) == metrics["loss"]
    return metrics


def run(loss, batch=BATCH, mesh=None):
    """Loss, metrics and gradients."""
    mesh = mesh or one_device()
    frozen = {}
    with on_mesh(mesh):
        params = jax.device_put(STUDENT, param_shardings(CONFIG, mesh))
        if loss.reference == "in_memory":
            frozen["reference"] = jax.device_put(TEACHER, param_shardings(TEACHER_CONFIG, mesh))
        (value, metrics), gradients = compiled(loss, mesh)(params, frozen, place(batch, mesh))
    metrics = {name: float(top / bottom) for name, (top, bottom) in metrics.items()}
    return float(value), metrics, jax.device_get(gradients)


@functools.cache
def stored(top_k, temperature=1.0, mesh=None):
    """The batch with what the teacher says of it."""
    mesh = mesh or one_device()
    loss = Distillation("stored", top_k=top_k, temperature=temperature)
    with on_mesh(mesh):
        params = jax.device_put(TEACHER, param_shardings(TEACHER_CONFIG, mesh))
        ask = jax.jit(functools.partial(loss.ask_reference, slots=0, network=network_on(mesh)))
        return BATCH | jax.device_get(ask(params, place(BATCH, mesh)))


@functools.cache
def dense_log_probs(which, temperature=1.0):
    """float64 [targets that count, V], and the targets."""
    params, config = {"student": (STUDENT, CONFIG), "teacher": (TEACHER, TEACHER_CONFIG)}[which]

    @jax.jit
    def scores(params):
        segments = BATCH["segment_ids"]
        hidden = forward(params, BATCH["tokens"], config=config, segment_ids=segments)
        return logits(params, hidden, config=config)

    values = np.asarray(scores(params), np.float64)[BATCH["loss_mask"]] / temperature
    return values - np.log(np.exp(values).sum(-1, keepdims=True))


def divergence(first, second):
    """Mean over targets of KL(first || second), of logarithms of probabilities."""
    return (np.exp(first) * (first - second)).sum(-1).mean()


def buckets(log_probs, words):
    """Those of `words`, and last of all others together, [targets, K + 1]."""
    of_words = np.take_along_axis(log_probs, words, -1)
    rest = 1 - np.exp(of_words).sum(-1, keepdims=True)
    return np.concatenate([of_words, np.log(np.maximum(rest, 1e-300))], -1)


def test_in_memory_it_is_the_formula():
    temperature = 2.0
    student, teacher = (dense_log_probs(w, temperature) for w in ("student", "teacher"))
    targets = BATCH["targets"][BATCH["loss_mask"]]
    nll = -np.take_along_axis(dense_log_probs("student"), targets[:, None], -1).mean()
    loss = Distillation("in_memory", temperature=temperature, label_weight=0.25)
    metrics = measure(loss)
    expected = {
        "forward_kl": divergence(teacher, student),
        "reverse_kl": divergence(student, teacher),
        "nll": nll,
    }
    expected["loss"] = 0.75 * temperature**2 * expected["forward_kl"] + 0.25 * nll
    assert metrics == pytest.approx(expected, rel=1e-5)  # of logits in float32
    assert metrics["forward_kl"] > 0.1
    assert abs(metrics["forward_kl"] - metrics["reverse_kl"]) > 0.01


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_without_labels_the_loss_is_its_divergence(direction):
    metrics = measure(Distillation("in_memory", direction=direction))
    assert metrics["loss"] == metrics[f"{direction}_kl"] and "nll" not in metrics
    both = dense_log_probs("teacher"), dense_log_probs("student")
    expected = divergence(*both if direction == "forward" else both[::-1])
    assert metrics["loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("top_k", [1, 6])
def test_stored_it_is_the_formula_of_the_buckets_and_a_lower_bound(top_k):
    student, teacher = dense_log_probs("student"), dense_log_probs("teacher")
    batch = stored(top_k)
    words = batch["teacher_tokens"][BATCH["loss_mask"]]
    np.testing.assert_array_equal(words, np.argsort(-teacher, -1, kind="stable")[:, :top_k])
    np.testing.assert_allclose(
        batch["teacher_log_probs"][BATCH["loss_mask"]], buckets(teacher, words), atol=ROUNDING
    )
    metrics = measure(Distillation("stored", top_k=top_k), batch)
    ours, theirs = buckets(student, words), buckets(teacher, words)
    assert metrics["forward_kl"] == pytest.approx(divergence(theirs, ours), rel=1e-5)
    assert metrics["reverse_kl"] == pytest.approx(divergence(ours, theirs), rel=1e-5)
    assert 0 < metrics["forward_kl"] < divergence(teacher, student)
    assert 0 < metrics["reverse_kl"] < divergence(student, teacher)


def test_all_words_stored_are_the_same_as_in_memory():
    options = {"direction": "reverse", "temperature": 2.0, "label_weight": 0.25}
    result = run(Distillation("stored", top_k=V, **options), stored(V, temperature=2.0))
    assert_same(result, run(Distillation("in_memory", **options)))


@pytest.mark.parametrize(
    "loss",
    [Distillation("in_memory", direction="reverse", temperature=2.0, label_weight=0.25),
     Distillation("stored", top_k=6)],
    ids=["in_memory", "stored"],
)  # fmt: skip
def test_every_mesh_gives_the_same(loss):
    batch = stored(6) if loss.reference == "stored" else BATCH
    assert_same(run(loss, batch, MESH), run(loss, batch))


def test_a_mesh_stores_the_same():
    one, many = stored(6), stored(6, mesh=MESH)
    np.testing.assert_array_equal(many["teacher_tokens"], one["teacher_tokens"])
    np.testing.assert_allclose(many["teacher_log_probs"], one["teacher_log_probs"], atol=ROUNDING)


def test_what_is_stored_is_what_the_loss_says():
    loss = Distillation("stored", top_k=6)
    for name, array in loss.row_arrays(32, 0).items():
        assert stored(6)[name].shape[1:] == array.shape and stored(6)[name].dtype == array.dtype


def test_rows_that_count_nothing_add_nothing():
    empty = {name: np.zeros_like(values) for name, values in stored(6).items()}
    loss = Distillation("stored", top_k=6, label_weight=0.5)
    assert float(loss.count(empty)) == 0.0
    network = network_on(one_device())
    with on_mesh(one_device()):
        gradient, sums = jax.jit(
            jax.grad(
                lambda params: (lambda s: (s.total, s))(
                    loss.sums(params, {}, empty, network=network)
                ),
                has_aux=True,
            )
        )(STUDENT)
    assert float(sums.total) == 0.0
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradient))


def test_stored_log_probs_that_are_not_there_are_an_error():
    with pytest.raises(InputError, match="loss.reference is stored, and the rows have no teacher"):
        run(Distillation("stored", top_k=6))


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"reference": "none"}, "loss.reference: must be one of stored, in_memory, not 'none'"),
        ({"direction": "both"}, "loss.direction: must be one of forward, reverse, not 'both'"),
        ({"top_k": None}, "loss.top_k: say how many words are stored"),
        ({"top_k": 0}, "loss.top_k: must be at least 1"),
        ({"reference": "in_memory"}, "loss.top_k: must be None in memory, where all words count"),
        ({"temperature": 0.0}, "loss.temperature: must be over 0"),
        ({"label_weight": -0.1}, "loss.label_weight: must be at least 0"),
        ({"label_weight": 1.0}, "loss.label_weight: must be below 1"),
    ],
)
def test_a_number_that_cannot_be_is_named(fields, message):
    good = Distillation("stored", top_k=6)
    good.check("loss")
    with pytest.raises(InputError) as error:
        dataclasses.replace(good, **fields).check("loss")
    assert str(error.value).startswith(message)
