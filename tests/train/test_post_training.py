"""SFT, DPO and a reward model end to end: files of lines in, weights out."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest

import train.loop
import train.reference_log_probs
from llama_jax.checkpoints.load import load_checkpoint
from llama_jax.errors import InputError
from sharding.mesh import MeshShape, make_mesh
from train.data.packed_rows import PackedRows
from train.data_checks import check_data
from train.losses.cross_entropy import CrossEntropy
from train.losses.dpo import Dpo

from .chat_runs import MODEL, dpo, preferences, reward_model, sft, write_data

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(scope="module", autouse=True)
def two_devices():
    """Of the eight that there are: two cores simulate them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train.loop, "make_mesh", lambda shape: make_mesh(shape, jax.devices()[:2]))
        yield


@pytest.fixture
def no_weights(monkeypatch):
    """For runs of whose end nothing is asked."""
    monkeypatch.setattr(train.loop, "export_weights", lambda *_: None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Data, and a model that was tuned on its dialogs."""
    folder = tmp_path_factory.mktemp("post_training")
    write_data(folder)
    train.loop.train(sft(folder), quiet=True)
    return folder


def lines_of(run, kind="train"):
    text = (Path(run.output) / "metrics.jsonl").read_text()
    return [line for line in map(json.loads, text.splitlines()) if line["kind"] == kind]


def test_sft_learns_the_answers(folder):
    first, *_, last = lines_of(sft(folder))
    assert first["loss"] > 4 and last["loss"] < 0.5 * first["loss"]
    # Of a dialog three letters and the end of the turn count.
    assert first["tokens"] % 4 == 0
    assert lines_of(sft(folder), "evaluation")[-1]["unseen"] < 0.5 * first["loss"]


@pytest.fixture(scope="module")
def tuned(folder):
    """The metrics of DPO with a stored reference, and its run."""
    run = dpo(folder)
    train.loop.train(run, quiet=True)
    return lines_of(run), lines_of(run, "evaluation"), run


def test_dpo_begins_at_the_reference_and_leaves_it(tuned):
    (first, *_, last), evaluations, _ = tuned
    assert first["preference_loss"] == pytest.approx(np.log(2), rel=1e-5)
    assert first["reference_kl"] == pytest.approx(0.0, abs=1e-4)
    assert first["loss"] == pytest.approx(np.log(2) + 0.2 * first["nll"], rel=1e-5)
    assert last["accuracy"] > 0.9 and last["margin"] > 0 and last["loss"] < first["loss"]
    assert evaluations[-1]["unseen/accuracy"] > 0.9 and evaluations[-1]["unseen"] < first["loss"]


def test_stored_log_probs_lie_beside_the_data_and_in_memory_gives_the_same(
    folder, tuned, no_weights
):
    found = sorted(path.name for path in folder.glob("*.reference_log_probs"))
    assert found == ["pairs_held_out.reference_log_probs", "pairs_train.reference_log_probs"]
    run = dpo(folder, loss=Dpo(reference="in_memory"))
    run = dataclasses.replace(run, output=str(folder / "in_memory"))
    train.loop.train(run, quiet=True)
    for ours, stored in zip(lines_of(run), tuned[0], strict=True):
        for name in ("loss", "nll", "gradient_norm"):
            # The same bits here; another compiler may sum a float32 in another order.
            assert ours[name] == pytest.approx(stored[name], rel=1e-5), name


def test_another_run_with_the_same_reference_computes_nothing(
    folder, tuned, monkeypatch, no_weights
):
    def computed(*_):
        raise AssertionError("computed again")

    monkeypatch.setattr(train.reference_log_probs, "_fill", computed)
    again = dataclasses.replace(dpo(folder, num_steps=1), output=str(folder / "again"))
    train.loop.train(again, quiet=True)
    assert lines_of(again)[0]["loss"] == pytest.approx(tuned[0][0]["loss"], rel=1e-6)
    other = dataclasses.replace(again, output=str(folder / "other"), compute_dtype="bfloat16")
    with pytest.raises(AssertionError, match="computed again"):
        train.loop.train(other, quiet=True)


def test_killed_among_the_blocks_it_goes_on_with_the_missing_ones(
    folder, tuned, monkeypatch, no_weights
):
    """Another policy, so that there are none: the weights that DPO ended with."""
    module, computed = train.reference_log_probs, []
    monkeypatch.setattr(module, "BLOCK_ROWS", 5)
    of_block = module._of_block

    def dying(job, network, params, rows, block, num_rows):
        if len(computed) == 2:
            raise KeyboardInterrupt
        computed.append((Path(rows.path).name, block.first))
        return of_block(job, network, params, rows, block, num_rows)

    monkeypatch.setattr(module, "_of_block", dying)
    run = dpo(folder, num_steps=1)
    stage = dataclasses.replace(run.stages[0], reference=str(folder / "dpo" / "weights"))
    run = dataclasses.replace(run, output=str(folder / "killed"), stages=(stage,))
    with pytest.raises(KeyboardInterrupt):
        train.loop.train(run, quiet=True)
    killed = computed.copy()

    def told(job, *rest):
        job.preemption._told = True
        computed.append(None)
        return of_block(job, *rest)

    monkeypatch.setattr(module, "_of_block", told)
    with pytest.raises(SystemExit) as stop:  # after a block, which is kept
        train.loop.train(run, quiet=True)
    assert stop.value.code == 143 and len(computed) == 3
    monkeypatch.setattr(module, "_of_block", lambda *a: (computed.append(None), of_block(*a))[1])
    train.loop.train(run, quiet=True)
    num_blocks = sum(
        -(-len(PackedRows(folder / f"pairs_{part}")) // 5) for part in ("train", "held_out")
    )
    assert len(killed) == 2 and len(computed) == num_blocks
    assert lines_of(run)[0]["reference_kl"] != pytest.approx(0.0, abs=1e-2)


def test_a_reward_model_ranks_the_answers(folder):
    run = reward_model(folder)
    train.loop.train(run, quiet=True)
    first, *_, last = lines_of(run)
    # Three answers to a prompt are three comparisons.
    assert first["comparisons"] % 3 == 0 and first["loss"] == pytest.approx(np.log(2), rel=0.1)
    assert last["accuracy"] > 0.9 and last["loss"] < 0.5
    config, params = load_checkpoint(folder / "reward" / "weights")
    assert config == dataclasses.replace(MODEL, reward_head=True)
    assert params["reward_head"].shape == (MODEL.model_dim,) and "head" not in params
    policy = dpo(folder)
    policy = dataclasses.replace(
        policy, output=str(folder / "wrong"), initial_weights=str(folder / "reward" / "weights")
    )
    with pytest.raises(InputError, match="is a reward model, which scores texts and predicts"):
        train.loop.train(policy, quiet=True)


@pytest.mark.parametrize(
    "run, kind, message",
    [
        (dpo, "dialogs", "has rows of dialogs, and Dpo is for pairs, which llama-jax data pref"),
        (sft, "pairs", "has rows of pairs, and CrossEntropy is for text or dialogs, which"),
        (reward_model, "pairs", "has rows of pairs, and BradleyTerry is for groups, which llama-j"),
    ],
)  # fmt: skip
def test_rows_of_another_kind_are_refused_before_anything_runs(folder, run, kind, message):
    run = run(folder)
    source = dataclasses.replace(run.stages[0].mixture[0], path=str(folder / f"{kind}_train"))
    stage = dataclasses.replace(run.stages[0], mixture=(source,))
    with pytest.raises(InputError, match=rf"^stages\[0\].mixture\[0\].path: .*{message}"):
        check_data(dataclasses.replace(run, stages=(stage,)), MeshShape(), begins=False)
    held_out = dataclasses.replace(run.evaluations[0], path=str(folder / f"{kind}_held_out"))
    with pytest.raises(InputError, match=rf"^evaluations\[0\].path: .*{message}"):
        check_data(dataclasses.replace(run, evaluations=(held_out,)), MeshShape(), begins=False)


@pytest.mark.parametrize("run", [sft, dpo, reward_model])
def test_rows_have_the_arrays_that_the_loss_says(folder, run):
    """By which steps are compiled for machines that are not here."""
    stage = run(folder).stages[0]
    rows = PackedRows(stage.mixture[0].path)
    said = stage.loss.row_arrays(rows.manifest.row_length, rows.manifest.slots)
    stored = {"reference_log_probs"} & said.keys()
    found = rows[0].arrays()
    assert found.keys() == said.keys() - stored
    for name, values in found.items():
        assert (values.shape, values.dtype) == (said[name].shape, said[name].dtype), name


def test_a_held_out_set_may_have_a_loss_of_its_own(folder, tuned, no_weights):
    run = dpo(folder, num_steps=1)
    dialogs = dataclasses.replace(
        run.evaluations[0],
        name="dialogs",
        path=str(folder / "dialogs_held_out"),
        loss=CrossEntropy(),
    )
    run = dataclasses.replace(
        run, output=str(folder / "two_sets"), evaluations=(*run.evaluations, dialogs)
    )
    train.loop.train(run, quiet=True)
    line = lines_of(run, "evaluation")[-1]
    assert {"unseen", "unseen/accuracy", "unseen/margin", "dialogs"} <= line.keys()
    before = lines_of(sft(folder), "evaluation")[-1]["unseen"]
    assert line["dialogs"] == pytest.approx(before, rel=0.2)


def test_the_lines_hold_what_the_tests_say():
    assert preferences("ab")[0] == {
        "messages": [{"role": "user", "content": "a"}],
        "edited": "a!!",
        "chosen": "a!?",
        "rejected": "a??",
    }
