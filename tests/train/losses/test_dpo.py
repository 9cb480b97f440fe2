"""DPO over packed pairs: the formulas by hand, and what must change nothing."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llama_jax.errors import InputError
from llama_jax.model import forward, logits
from sharding.mesh import MeshShape, make_mesh
from sharding.placement import on_mesh, param_shardings
from train.losses.answer_pairs import answer_log_probs
from train.losses.dpo import Dpo

from .pair_batches import (
    CONFIG,
    assert_same,
    make_pairs,
    make_policies,
    network_on,
    one_device,
    pack,
    place,
    value_and_gradient,
)

pytestmark = pytest.mark.usefixtures("quick_compilation")

PAIRS = make_pairs(8)
POLICY, REFERENCE = make_policies()


@jax.jit
def dense_log_probs(params, tokens):
    hidden = forward(params, tokens[None, :-1], config=CONFIG)
    scores = jax.nn.log_softmax(logits(params, hidden, config=CONFIG)[0])
    return jnp.take_along_axis(scores, tokens[1:, None], axis=-1)[:, 0]


@functools.cache
def log_prob_by_hand(which, prompt, answer):
    """Log-probabilities float64 of the tokens of one answer, from a row of its own."""
    params = {"policy": POLICY, "reference": REFERENCE}[which]
    padded = np.zeros(16, np.int32)  # one shape to compile for; what follows is not seen
    padded[: len(prompt) + len(answer)] = prompt + answer
    values = np.asarray(dense_log_probs(params, padded), np.float64)
    return values[len(prompt) - 1 : len(prompt) + len(answer) - 1]


def answer_sums(which, *, masks_end=False):
    """[pairs, 2] sums over the counted tokens of chosen and rejected."""
    return np.array(
        [
            [
                log_prob_by_hand(which, tuple(pair.prompt), tuple(answer))[
                    : len(answer) - masks_end
                ].sum()
                for answer in (pair.chosen, pair.rejected)
            ]
            for pair in PAIRS
        ]
    )


@functools.cache
def compiled(loss, mesh):
    return value_and_gradient(loss, network_on(mesh))


def run(loss, batch, frozen=None, mesh=None):
    mesh = mesh or one_device()
    with on_mesh(mesh):
        shardings = param_shardings(CONFIG, mesh)
        params = jax.device_put(POLICY, shardings)
        frozen = {name: jax.device_put(tree, shardings) for name, tree in (frozen or {}).items()}
        (value, metrics), gradients = compiled(loss, mesh)(params, frozen, place(batch, mesh))
    metrics = {name: float(top / bottom) for name, (top, bottom) in metrics.items()}
    return float(value), metrics, jax.device_get(gradients)


def packed(**options):
    return pack(PAIRS, **{"pairs_per_row": 2, "row_length": 64, **options})


def with_reference(batch, params=REFERENCE, mesh=None):
    mesh = mesh or one_device()
    num_pairs = 3  # one more than a row has
    network = network_on(mesh)
    with on_mesh(mesh):
        values = jax.jit(lambda params: answer_log_probs(params, batch, num_pairs, network=network))
        return batch | {"reference_log_probs": np.asarray(values(params))}


def test_the_card_s_formula_is_that_of_a_hand_computation():
    """-log sigmoid(beta [log p(y+) - log p(y-)]), beta 0.1, without a reference."""
    sums = answer_sums("policy")
    expected = np.log1p(np.exp(-0.1 * (sums[:, 0] - sums[:, 1]))).mean()
    value, metrics, _ = run(Dpo(reference="none", nll_coefficient=0.0), packed())
    assert value == pytest.approx(expected, rel=1e-5)  # of log-probabilities in float32
    assert metrics["log_prob_rejected"] == pytest.approx(sums[:, 1].mean(), rel=1e-5)
    assert "reference_kl" not in metrics and "nll" not in metrics


def test_llama_3_s_loss_is_that_of_a_hand_computation():
    """The end of the turn is masked in both answers of the comparison, and not in the likelihood,
    which is a mean over an answer's own tokens."""
    policy, reference = (answer_sums(which, masks_end=True) for which in ("policy", "reference"))
    ratios = policy - reference
    margins = ratios[:, 0] - ratios[:, 1]
    nll = [
        -log_prob_by_hand("policy", tuple(pair.prompt), tuple(pair.chosen)).mean() for pair in PAIRS
    ]
    batch = with_reference(packed(masks_end=True))
    value, metrics, _ = run(Dpo(), batch)
    expected = {
        "preference_loss": np.log1p(np.exp(-0.1 * margins)).mean(),
        "nll": np.mean(nll),
        "accuracy": np.mean(margins > 0),
        "margin": 0.1 * margins.mean(),
        "reward_chosen": 0.1 * ratios[:, 0].mean(),
        "reward_rejected": 0.1 * ratios[:, 1].mean(),
        "log_prob_chosen": policy[:, 0].mean(),
        "log_prob_rejected": policy[:, 1].mean(),
        "reference_kl": ratios.mean(),
    }
    expected["loss"] = expected["preference_loss"] + 0.2 * expected["nll"]
    assert metrics == pytest.approx(expected, rel=1e-4)  # of differences of float32 sums
    assert value == metrics["loss"] and 0 < metrics["accuracy"] < 1


@pytest.mark.parametrize("pairs_per_row", [1, 3, 8])
def test_packing_changes_nothing(pairs_per_row):
    loss = Dpo(reference="none")
    batch = packed(pairs_per_row=pairs_per_row, row_length=32 * pairs_per_row)
    assert_same(run(loss, batch), run(loss, packed()))


def test_stored_and_in_memory_are_the_same():
    stored = run(Dpo(), with_reference(packed()))
    in_memory = run(Dpo(reference="in_memory"), packed(), {"reference": REFERENCE})
    assert_same(in_memory, stored)


def test_the_reference_itself_has_no_margin():
    value, metrics, _ = run(Dpo(nll_coefficient=0.0), with_reference(packed(), POLICY))
    assert value == pytest.approx(np.log(2), rel=1e-6)
    assert metrics["margin"] == metrics["reference_kl"] == metrics["accuracy"] == 0.0


@pytest.mark.parametrize(
    "shape, reference",
    [(MeshShape(data=2, fsdp=2, tensor=2), "in_memory"), (MeshShape(fsdp=8), "stored")],
    ids=["tensor", "fsdp"],
)
def test_every_mesh_gives_the_same(shape, reference):
    """Eight rows, of which four have no pair."""
    mesh = make_mesh(shape, jax.devices()[:8])
    batch, frozen = packed(rows=8), {}
    if reference == "stored":
        batch = with_reference(batch)
    else:
        frozen = {"reference": REFERENCE}
    loss = Dpo(reference=reference)
    assert_same(run(loss, batch, frozen, mesh), run(loss, batch, frozen))


def test_a_mesh_computes_the_reference_s_log_probs_alike():
    mesh = make_mesh(MeshShape(fsdp=4, tensor=2), jax.devices()[:8])
    batch = packed()
    one = with_reference(batch)["reference_log_probs"]
    with on_mesh(mesh):
        placed = jax.device_put(REFERENCE, param_shardings(CONFIG, mesh))
    many = with_reference(batch, placed, mesh)["reference_log_probs"]
    np.testing.assert_allclose(many, one, rtol=2e-6, atol=2e-6)
    assert not one[:, 2].any() and one[:, :2].all()


def test_no_pair_counts_nothing():
    batch = packed()
    nothing = {name: np.zeros_like(values) for name, values in batch.items()}
    loss = Dpo(reference="none")
    assert float(loss.count(nothing)) == 0.0 and float(loss.count(batch)) == len(PAIRS)
    network = network_on(one_device())
    with on_mesh(one_device()):
        sums = jax.jit(lambda params: loss.sums(params, {}, nothing, network=network))(POLICY)
    assert float(sums.total) == 0.0
    assert {float(value) for pair in sums.metrics.values() for value in pair} == {0.0}


def test_forms_by_hand():
    margins = np.array([-30.0, -1.0, 0.0, 2.0, 40.0])
    right, wrong = np.log1p(np.exp(-0.5 * margins)), np.log1p(np.exp(0.5 * margins))
    cases = {
        Dpo(beta=0.5): right,
        Dpo(beta=0.5, form="ipo"): (margins - 1.0) ** 2,
        Dpo(beta=0.5, label_smoothing=0.1): 0.9 * right + 0.1 * wrong,
        Dpo(beta=0.5, form="robust", label_smoothing=0.1): (0.9 * right - 0.1 * wrong) / 0.8,
        Dpo(beta=0.5, form="robust"): right,
    }
    for loss, expected in cases.items():
        np.testing.assert_allclose(loss.of_margin(jnp.array(margins)), expected, rtol=1e-5)


def test_stored_log_probs_that_are_not_there_are_an_error():
    with pytest.raises(InputError, match="loss.reference is stored, and the rows have no ref"):
        run(Dpo(), packed())


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"beta": 0.0}, "stages[0].loss.beta: must be over 0"),
        ({"beta": np.nan}, "stages[0].loss.beta: must be over 0, not nan"),
        ({"form": "hinge"}, "stages[0].loss.form: must be one of sigmoid, ipo, robust"),
        ({"reference": "disk"}, "stages[0].loss.reference: must be one of stored, in_memory, none"),
        ({"label_smoothing": 0.5}, "stages[0].loss.label_smoothing: must be below 0.5"),
        ({"label_smoothing": -0.1}, "stages[0].loss.label_smoothing: must be at least 0"),
        ({"label_smoothing": 0.1, "form": "ipo"}, "stages[0].loss.label_smoothing: has no meaning"),
        ({"nll_coefficient": -1.0}, "stages[0].loss.nll_coefficient: must be at least 0"),
    ],
)
def test_a_number_that_cannot_be_is_named(fields, message):
    Dpo().check("stages[0].loss")
    with pytest.raises(InputError) as error:
        dataclasses.replace(Dpo(), **fields).check("stages[0].loss")
    assert str(error.value).startswith(message)
