"""DPO against trl: loss, every gradient and the metrics, for the same weights and pairs."""

import functools

import jax
import numpy as np
import pytest

from llama_jax.checkpoints.load import load_checkpoint
from llama_jax.checkpoints.save import save_checkpoint
from sharding.placement import on_mesh
from train.losses.dpo import Dpo

from .pair_batches import (
    CONFIG,
    make_pairs,
    make_policies,
    network_on,
    one_device,
    pack,
    value_and_gradient,
)

trl = pytest.importorskip("trl", reason="needs trl without its dependencies, see .ci/run")

# trl, accelerate and datasets warn of one another's coming versions.
pytestmark = [
    pytest.mark.usefixtures("quick_compilation"),
    pytest.mark.filterwarnings("ignore"),
]

# Both compute in float32. Measured: 3e-7 of the losses, 5e-6 of each leaf's largest gradient.
LOSS_TOLERANCE, GRADIENT_TOLERANCE = 2e-6, 1e-5
PAIRS = make_pairs(4)
METRICS = {
    "rewards/chosen": "reward_chosen",
    "rewards/rejected": "reward_rejected",
    "rewards/accuracies": "accuracy",
    "rewards/margins": "margin",
    "logps/chosen": "log_prob_chosen",
    "logps/rejected": "log_prob_rejected",
}
# Ours, what trl calls it (loss and weight), its label smoothing, and whether it must see one pair
# at a time: its conservative loss sorts the pairs of a batch, and its likelihood is a mean over all
# chosen tokens, where ours is a mean over each answer first.
CASES = {
    "sigmoid": (Dpo(nll_coefficient=0.0), {"sigmoid": 1.0}, 0.0, False),
    "sharper": (Dpo(beta=0.5, nll_coefficient=0.0), {"sigmoid": 1.0}, 0.0, False),
    "length-normalised": (
        Dpo(length_normalized=True, nll_coefficient=0.0), {"sigmoid_norm": 1.0}, 0.0, False,
    ),
    "ipo": (
        Dpo(form="ipo", length_normalized=True, nll_coefficient=0.0), {"ipo": 1.0}, 0.0, False,
    ),
    "robust": (
        Dpo(form="robust", label_smoothing=0.2, nll_coefficient=0.0), {"robust": 1.0}, 0.2, False,
    ),
    "conservative": (
        Dpo(label_smoothing=0.2, nll_coefficient=0.0), {"aot_unpaired": 1.0}, 0.2, True,
    ),
    "with likelihood": (Dpo(), {"sigmoid": 1.0, "sft": 0.2}, 0.0, True),
}  # fmt: skip


@pytest.fixture(scope="module")
def policies():
    return make_policies()


@pytest.fixture(scope="module")
def trainer(policies, tmp_path_factory):
    """trl's trainer of the two models, in float32 on the CPU."""
    from datasets import Dataset
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("trl")
    loaded = []
    for name, params in zip(("policy", "reference"), policies, strict=True):
        save_checkpoint(folder / name, CONFIG, params, format="hf")
        loaded.append(LlamaForCausalLM.from_pretrained(folder / name))
    words = Tokenizer(models.WordLevel({f"t{i}": i for i in range(64)}, unk_token="t3"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="t0", eos_token="t2")
    arguments = trl.DPOConfig(
        output_dir=str(folder / "out"), beta=0.1, report_to=[], use_cpu=True, bf16=False,
        max_length=None, disable_tqdm=True, per_device_train_batch_size=len(PAIRS),
    )  # fmt: skip
    return trl.DPOTrainer(
        model=loaded[0],
        ref_model=loaded[1],
        args=arguments,
        train_dataset=Dataset.from_list([{"prompt": "t5", "chosen": " t6", "rejected": " t7"}]),
        processing_class=tokenizer,
    )


def theirs(trainer, pairs, loss, losses, smoothing, *, precomputed=None):
    """Loss, metrics, and gradients as a checkpoint's parameters."""
    trainer.loss_types, trainer.loss_weights = list(losses), list(losses.values())
    trainer.label_smoothing, trainer.beta = smoothing, loss.beta
    trainer.precompute_ref_logps = precomputed is not None
    trainer._metrics["train"].clear()
    batch = trainer.data_collator(
        [
            {"prompt_ids": p.prompt, "chosen_ids": p.chosen, "rejected_ids": p.rejected}
            for p in pairs
        ]
    )
    if precomputed is not None:
        batch |= precomputed
    trainer.model.train()
    value = trainer._compute_loss(trainer.model, batch, False)
    value.backward()
    metrics = trainer._metrics["train"]
    return value.item(), {ours: metrics[name][-1] for name, ours in METRICS.items()}


def their_gradients(trainer, folder):
    """What was added up since the last call."""
    import copy

    gradient = copy.deepcopy(trainer.model)
    for weight, original in zip(gradient.parameters(), trainer.model.parameters(), strict=True):
        weight.data = original.grad.clone()
    trainer.model.zero_grad()
    gradient.save_pretrained(folder)
    return load_checkpoint(folder, dtype="float32")[1]


@functools.cache
def compiled(loss):
    return value_and_gradient(loss, network_on(one_device()))


def ours(loss, params, frozen, batch):
    with on_mesh(one_device()):
        (value, metrics), gradients = compiled(loss)(params, frozen, batch)
    return float(value), {n: float(a / b) for n, (a, b) in metrics.items()}, gradients


def assert_same_gradients(gradients, expected):
    for (path, leaf), other in zip(
        jax.tree_util.tree_leaves_with_path(gradients), jax.tree.leaves(expected), strict=True
    ):
        error = np.abs(np.asarray(leaf) - np.asarray(other)).max()
        assert error < GRADIENT_TOLERANCE * np.abs(other).max(), jax.tree_util.keystr(path)


@pytest.mark.parametrize("case", CASES)
def test_with_a_reference(case, trainer, policies, tmp_path):
    loss, losses, smoothing, one_by_one = CASES[case]
    loss = Dpo(**{**vars(loss), "reference": "in_memory"})
    groups = [[pair] for pair in PAIRS] if one_by_one else [PAIRS]
    results = [theirs(trainer, group, loss, losses, smoothing) for group in groups]
    expected = their_gradients(trainer, tmp_path / "gradient")
    batch = pack(PAIRS, pairs_per_row=2, row_length=48)
    value, metrics, gradients = ours(loss, policies[0], {"reference": policies[1]}, batch)
    assert value == pytest.approx(np.mean([v for v, _ in results]), rel=LOSS_TOLERANCE)
    assert metrics["loss"] == pytest.approx(value, rel=LOSS_TOLERANCE)
    if not loss.length_normalized:  # trl's rewards are sums in any case
        for name in METRICS.values():
            mean = np.mean([of[name] for _, of in results])
            assert metrics[name] == pytest.approx(mean, rel=1e-5, abs=1e-6), name
    scaled = jax.tree.map(lambda leaf: leaf / len(groups), expected)
    assert_same_gradients(gradients, scaled)


def test_without_a_reference(trainer, policies, tmp_path):
    """trl has none, and is told that the reference finds every answer certain."""
    import torch

    loss = Dpo(reference="none", nll_coefficient=0.0)
    nothing = torch.zeros(len(PAIRS))
    nothing = {"ref_chosen_logps": nothing, "ref_rejected_logps": nothing}
    expected, _ = theirs(trainer, PAIRS, loss, {"sigmoid": 1.0}, 0.0, precomputed=nothing)
    gradient = their_gradients(trainer, tmp_path / "gradient")
    value, _, gradients = ours(loss, policies[0], {}, pack(PAIRS, pairs_per_row=2, row_length=48))
    assert value == pytest.approx(expected, rel=LOSS_TOLERANCE)
    assert_same_gradients(gradients, gradient)


def test_stored_log_probs_are_what_trl_precomputes(trainer, policies):
    """trl's own precomputation into a data set, and ours into a batch, give the same loss."""
    import torch

    from train.losses.answer_pairs import answer_log_probs

    loss = Dpo(nll_coefficient=0.0)
    batch = pack(PAIRS, pairs_per_row=4, row_length=96)
    network = network_on(one_device())
    with on_mesh(one_device()):
        stored = jax.jit(
            lambda params: answer_log_probs(params, batch, len(PAIRS), network=network)
        )(policies[1])
    stored = np.asarray(stored)[0]
    given = {
        "ref_chosen_logps": torch.tensor(stored[:, 0]),
        "ref_rejected_logps": torch.tensor(stored[:, 1]),
    }
    expected, _ = theirs(trainer, PAIRS, loss, {"sigmoid": 1.0}, 0.0)
    taken, _ = theirs(trainer, PAIRS, loss, {"sigmoid": 1.0}, 0.0, precomputed=given)
    assert taken == pytest.approx(expected, rel=LOSS_TOLERANCE)
    value, _, _ = ours(loss, policies[0], {}, batch | {"reference_log_probs": stored[None]})
    assert value == pytest.approx(expected, rel=LOSS_TOLERANCE)
