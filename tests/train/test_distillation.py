"""Distillation end to end: a student that approaches its teacher, in memory and stored."""

import dataclasses
import json
from pathlib import Path

import jax
import pytest

import train.loop
import train.reference_log_probs
import train.stage_loop
from llama_jax.checkpoints.save import save_checkpoint
from llama_jax.errors import InputError
from llama_jax.model import init_params
from sharding.mesh import MeshShape, make_mesh
from train.config import CheckpointConfig, EvaluationSet, OptimizerConfig, RunConfig, Source
from train.data.packed_rows import PackedRows
from train.data.reference_log_probs import reference_folder
from train.data_checks import check_data
from train.losses.cross_entropy import CrossEntropy
from train.losses.distillation import Distillation
from train.reference_policy import reference_sha256
from train.run_checks import check_run
from train.schedules import WarmupCosine
from train.stages.distillation import distillation_stage

from .chat_runs import MODEL, ROW_LENGTH, write_data, write_tokenizer
from .data.corpus import files_of

pytestmark = pytest.mark.usefixtures("quick_compilation")

# Another width, other heads and another depth than the student's.
TEACHER = dataclasses.replace(MODEL, num_layers=1, model_dim=48, num_heads=6, head_dim=8)
STORED = Distillation("stored", top_k=8)


@pytest.fixture(scope="module", autouse=True)
def one_device():
    """And no weights at the end, of which nothing is asked."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train.loop, "make_mesh", lambda shape: make_mesh(shape, jax.devices()[:1]))
        patch.setattr(train.loop, "export_weights", lambda *_: None)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Data, and a teacher whose opinions are strong enough to learn."""
    folder = tmp_path_factory.mktemp("distillation")
    write_data(folder)
    for name, seed in (("teacher", 1), ("other", 2)):
        params = jax.jit(lambda key: init_params(TEACHER, key))(jax.random.key(seed))
        params = jax.tree.map(lambda leaf: 4 * leaf, params)
        save_checkpoint(folder / name, TEACHER, params, format="hf")
        write_tokenizer(folder / name)
    return folder


def distill(folder, name, loss=STORED, num_steps=12, **fields):
    rate = WarmupCosine(2e-2, 2e-3, warmup_steps=2, decay_steps=num_steps)
    stage = distillation_stage(
        num_steps=num_steps,
        row_length=ROW_LENGTH,
        rows=4,
        mixture=(Source("dialogs", str(folder / "dialogs_train"), 1.0),),
        learning_rate=rate,
        loss=loss,
        reference=str(folder / "teacher"),
        reference_model=TEACHER,
    )
    return RunConfig(
        output=str(folder / name),
        model=MODEL,
        tokenizer=str(folder / "tokenizer"),
        stages=(dataclasses.replace(stage, **fields),),
        checkpoint=CheckpointConfig(every_steps=100, keep=1),
        optimizer=OptimizerConfig(weight_decay=0.0),
        mesh=MeshShape(fsdp=1),
        compute_dtype="float32",
        remat="none",
        evaluations=(EvaluationSet("unseen", str(folder / "dialogs_held_out"), 1, 2),),
    )


def lines_of(run, kind="train"):
    text = (Path(run.output) / "metrics.jsonl").read_text()
    return [line for line in map(json.loads, text.splitlines()) if line["kind"] == kind]


@pytest.fixture(scope="module")
def stored(folder):
    """The metrics of a run with a stored teacher."""
    run = distill(folder, "stored")
    train.loop.train(run, quiet=True)
    return lines_of(run), lines_of(run, "evaluation")[-1]


def test_the_student_approaches_its_teacher(folder, stored):
    (first, *_, last), held_out = stored
    assert first["loss"] == first["forward_kl"] > 0.5
    assert last["forward_kl"] < 0.5 * first["forward_kl"]
    assert held_out["unseen"] == held_out["unseen/forward_kl"] < 0.6 * first["forward_kl"]
    assert held_out["unseen/reverse_kl"] > 0
    found = sorted(path.name for path in folder.glob("*.reference_log_probs"))
    assert found == ["dialogs_held_out.reference_log_probs", "dialogs_train.reference_log_probs"]


def test_in_memory_all_words_count(folder, stored):
    """The same student on the same rows: its first divergence is at least that of the buckets."""
    run = distill(folder, "in_memory", Distillation("in_memory"), num_steps=4)
    run = dataclasses.replace(run, evaluations=())
    train.loop.train(run, quiet=True)
    first, *_, last = lines_of(run)
    assert stored[0][0]["forward_kl"] < first["forward_kl"] < 2 * stored[0][0]["forward_kl"]
    assert last["forward_kl"] < first["forward_kl"]


def test_killed_among_the_blocks_it_stores_the_same_bytes(folder, stored, monkeypatch, tmp_path):
    """Into a copy of the data, whose name is no part of its hash."""
    module, computed = train.reference_log_probs, []
    data = folder / "dialogs_train"
    (copy := tmp_path / "dialogs_train").mkdir()
    for name, content in files_of(data).items():
        (copy / name).write_bytes(content)
    monkeypatch.setattr(module, "BLOCK_ROWS", 2)
    of_block = module._of_block

    def dying(job, stage, params, rows, block, num_rows):
        if len(computed) == 2:
            raise KeyboardInterrupt
        computed.append(block.number)
        return of_block(job, stage, params, rows, block, num_rows)

    monkeypatch.setattr(module, "_of_block", dying)
    source = Source("dialogs", str(copy), 1.0)
    run = distill(folder, "killed", num_steps=1, mixture=(source,))
    run = dataclasses.replace(run, evaluations=())
    with pytest.raises(KeyboardInterrupt):
        train.loop.train(run, quiet=True)
    (beside,) = tmp_path.glob("*.reference_log_probs/*")
    assert not (beside / "reference.json").exists()

    def living(*arguments):
        computed.append(arguments[4].number)
        return of_block(*arguments)

    def stop(*_):
        raise KeyboardInterrupt  # all is stored when the rows are asked for

    monkeypatch.setattr(module, "_of_block", living)
    monkeypatch.setattr(train.stage_loop, "stage_mixture", stop)
    with pytest.raises(KeyboardInterrupt):
        train.loop.train(run, quiet=True)
    assert computed == list(range(-(-len(PackedRows(data)) // 2)))
    assert files_of(beside) == files_of(reference_folder(data, beside.name))


def test_what_another_teacher_said_is_not_taken(folder, stored):
    """Nor what this one said of fewer words, or at another temperature."""

    def rows(teacher="teacher", model=TEACHER, **changes):
        key = dataclasses.replace(STORED, **changes).reference_key
        sha256 = reference_sha256(str(folder / teacher), model, "float32", "bfloat16", key)
        return PackedRows(folder / "dialogs_train", reference_sha256=sha256)

    assert rows()[0].arrays()["teacher_tokens"].shape == (ROW_LENGTH, 8)
    for other in (
        {"teacher": "other"},
        {"model": dataclasses.replace(TEACHER, rope_theta=7.0)},
        {"top_k": 9},
        {"temperature": 2.0},
    ):
        with pytest.raises(InputError, match="no reference log-probabilities of the model .* only"):
            rows(**other)


def test_a_held_out_set_may_ask_for_the_likelihood_alone(folder):
    """And not for a teacher's words that the stage has not."""
    run = distill(folder, "likelihood")
    for loss, message in (
        (CrossEntropy(), None),
        (STORED, None),
        (dataclasses.replace(STORED, top_k=9), "evaluations[0].loss: stored reference, and stage"),
        (Distillation("in_memory"), "evaluations[0].loss: in_memory reference, and stage distill"),
    ):
        held_out = dataclasses.replace(run.evaluations[0], loss=loss)
        changed = dataclasses.replace(run, evaluations=(held_out,))
        if message is None:
            check_run(changed, 1)
            continue
        with pytest.raises(InputError) as error:
            check_run(changed, 1)
        assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"reference": None}, "reference: name the teacher's checkpoint"),
        ({"reference_model": dataclasses.replace(TEACHER, vocab_size=512)},
         "reference_model: its vocab_size 512 is not model.vocab_size 264: a teacher must have"),
        ({"reference_model": dataclasses.replace(TEACHER, context_length=64)},
         "reference_model: its context_length 64 is less than stages[0].row_length 384"),
        ({"reference_model": dataclasses.replace(TEACHER, reward_head=True)},
         "reference_model: is a reward model, and predicts no words"),
        ({"reference_model": dataclasses.replace(TEACHER, model_dim=49)},
         "reference_model.model_dim"),
        ({"loss": CrossEntropy()}, "reference_model: CrossEntropy compares with the run's own mod"),
        ({"loss": Distillation("stored", top_k=265)}, "loss.top_k: 265 is over model.vocab_size"),
        ({"reference": None, "reference_model": None},
         "reference: name the checkpoint of the reference policy"),
    ],
)  # fmt: skip
def test_a_teacher_that_cannot_be_is_named(folder, changes, message):
    with pytest.raises(InputError) as error:
        run = distill(folder, "wrong", **changes)
        check_run(dataclasses.replace(run, mesh=MeshShape(fsdp=2)), 2)
    assert f"stages[0].{message}" in str(error.value)


def test_a_teacher_of_another_tokenizer_is_refused(folder, tmp_path):
    mesh = MeshShape(fsdp=1)
    run = distill(folder, "wrong")
    check_data(run, mesh, begins=True)
    write_tokenizer(tmp_path)
    fields = json.loads((tmp_path / "tokenizer.json").read_text())
    fields["added_tokens"].append({**fields["added_tokens"][0], "id": 260, "content": "<|more|>"})
    (tmp_path / "tokenizer.json").write_text(json.dumps(fields))
    for path, message in (
        (tmp_path, "has another tokenizer than .*give a teacher with the same tokenizer"),
        (folder / "dialogs_train", "tokenizer"),
    ):
        stage = dataclasses.replace(run.stages[0], reference=str(path))
        with pytest.raises(InputError, match=rf"^stages\[0\].reference: .*{message}"):
            check_data(dataclasses.replace(run, stages=(stage,)), mesh, begins=True)


def test_weights_of_another_model_than_the_teacher_s_are_refused(folder):
    wider = dataclasses.replace(TEACHER, rope_theta=7.0)
    run = distill(folder, "wrong_weights", Distillation("in_memory"), reference_model=wider)
    with pytest.raises(InputError, match="teacher.*: its model has rope_theta .*, the run's has 7"):
        train.loop.train(run, quiet=True)
