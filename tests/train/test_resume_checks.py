"""What may change in a run that has begun, and what may not."""

import dataclasses

import pytest

from configs.tiny_cpu import tiny_cpu
from llama_jax.config import LinearScaling
from llama_jax.errors import InputError
from sharding.mesh import MeshShape
from train.config import EvaluationSet, Gate, ProfileWindow, Source
from train.losses.cross_entropy import CrossEntropy
from train.progress import Progress
from train.resume_checks import changed_fields, check_resume, latest_progress
from train.schedules import Linear

GATE = Gate("plays_unseen", 0.01, 1.0, 8, 1000, 1, "stop")
BEFORE = tiny_cpu()
BEFORE = dataclasses.replace(
    BEFORE,
    stages=(
        dataclasses.replace(BEFORE.stages[0], name="first"),
        dataclasses.replace(BEFORE.stages[0], name="second", gate=GATE),
        BEFORE.stages[1],
    ),
)
SECOND = Progress(stage=1, step=400, stage_step=40, stage_first_step=360, rows=320, tokens=9)


def changed(**fields):
    return dataclasses.replace(BEFORE, **fields)


def changed_stage(index, **fields):
    stages = list(BEFORE.stages)
    stages[index] = dataclasses.replace(stages[index], **fields)
    return changed(stages=tuple(stages))


def changed_batch(index, **fields):
    first, *rest = BEFORE.stages[index].batch
    return changed_stage(index, batch=(dataclasses.replace(first, **fields), *rest))


def changed_optimizer(**fields):
    return changed(optimizer=dataclasses.replace(BEFORE.optimizer, **fields))


(SET,) = BEFORE.evaluations
FREE = {
    "nothing": BEFORE,
    "output": changed(output="elsewhere"),
    "mesh": changed(mesh=MeshShape(data=2, fsdp=4)),
    "remat": changed(remat="full"),
    "attention": changed(attention=("reference",)),
    "vocab_chunk": changed(vocab_chunk=8),
    "logging": changed(log_every_steps=3, evaluate_every_steps=7),
    "profile": changed(profile=ProfileWindow(500, 2)),
    "checkpoint": changed(checkpoint=dataclasses.replace(BEFORE.checkpoint, keep=9)),
    "more sets": changed(evaluations=(EvaluationSet("x", "y", 1, 1), SET)),
    "spikes": changed_optimizer(spike_factor=4.0, max_skipped=50),
    "micro-batches of a past stage": changed_batch(0, micro_batches=2),
    "micro-batches of this stage": changed_batch(1, micro_batches=2),
    "longer stage": changed_stage(1, num_tokens=1 << 30),
    "another gate": changed_stage(1, gate=dataclasses.replace(GATE, needle_accuracy=0.5)),
    "later stage": changed_stage(2, learning_rate=Linear(1.0, 0.5), row_length=8),
    "one more stage": changed(stages=(*BEFORE.stages, BEFORE.stages[0])),
    "no later stage": changed(stages=BEFORE.stages[:2]),
}
FIXED = {
    "seed": changed(seed=1),
    "model.num_layers": changed(model=dataclasses.replace(BEFORE.model, num_layers=5)),
    "model.rope_scaling": changed(
        model=dataclasses.replace(BEFORE.model, rope_scaling=LinearScaling(2.0))
    ),
    "tokenizer": changed(tokenizer="other"),
    "initial_weights": changed(initial_weights="other"),
    "compute_dtype": changed(compute_dtype="bfloat16"),
    "param_dtype": changed(param_dtype="bfloat16"),
    "matmul": changed(matmul="fp8_rowwise"),
    "stages[1].loss.z_loss": changed_stage(1, loss=CrossEntropy(1e-4)),
    "optimizer.beta2": changed_optimizer(beta2=0.99),
    "stages[0].num_tokens": changed_stage(0, num_tokens=5),
    "stages[0].mixture[0].weight": changed_stage(
        0, mixture=(dataclasses.replace(BEFORE.stages[0].mixture[0], weight=2.0),)
    ),
    "stages[1].mixture[1].name": changed_stage(
        1, mixture=(*BEFORE.stages[1].mixture, Source("new", "new", 1.0))
    ),
    "stages[1].learning_rate.peak": changed_stage(
        1, learning_rate=dataclasses.replace(BEFORE.stages[1].learning_rate, peak=1.0)
    ),
    "stages[1].batch[1].after_tokens": changed_stage(1, batch=BEFORE.stages[1].batch[:1]),
    "stages[1].batch[0].rows": changed_batch(1, rows=4),
    "stages[1].rope_theta": changed_stage(1, rope_theta=5.0),
    "stages[1].average_last": changed_stage(1, average_last=2),
    "stages[1].gate.short_set": changed_stage(1, gate=dataclasses.replace(GATE, short_set="x")),
    "stages[1].name": changed(stages=BEFORE.stages[:1]),
    "evaluations, plays_unseen": changed(evaluations=(dataclasses.replace(SET, num_rows=8),)),
}


@pytest.mark.parametrize("what", FREE)
def test_what_may_change(what):
    check_resume(BEFORE, FREE[what], SECOND)


@pytest.mark.parametrize("field", FIXED)
def test_what_may_not_change_is_named(field):
    with pytest.raises(InputError) as error:
        check_resume(BEFORE, FIXED[field], SECOND)
    message = str(error.value)
    assert message.startswith(f"{field}: was ") and "after step 400" in message


def test_the_length_of_a_stage_that_depends_on_it_is_fixed():
    """A slope is height over length, and averaged checkpoints lie at parts of the length."""
    longer = changed_stage(2, num_tokens=1 << 30)
    last = dataclasses.replace(SECOND, stage=2)
    with pytest.raises(InputError, match=r"^stages\[2\].num_tokens: was 163840 and is 1073741824"):
        check_resume(BEFORE, longer, last)
    # Its stage has not begun: the stage before is at its last step.
    check_resume(BEFORE, longer, dataclasses.replace(last, stage_step=0))


def test_a_gate_cannot_come_once_its_stage_has_begun():
    with pytest.raises(InputError, match=r"stages\[0\].gate"):
        check_resume(BEFORE, changed_stage(0, gate=GATE), dataclasses.replace(SECOND, stage=0))


def test_what_has_changed_is_told_with_both_values():
    assert changed_fields(BEFORE, changed(output="elsewhere")) == []
    now = changed(log_every_steps=3, profile=ProfileWindow(5, 2), stages=BEFORE.stages[:2])
    told = changed_fields(BEFORE, now)
    assert told[0] == "stages[2].name: 'anneal' -> absent"
    assert f"log_every_steps: {BEFORE.log_every_steps} -> 3" in told
    assert told[-2:] == ["profile.first_step: absent -> 5", "profile.num_steps: absent -> 2"]


def test_a_folder_without_a_checkpoint_has_no_progress(tmp_path):
    assert latest_progress(tmp_path) is None
    (tmp_path / "checkpoints" / "000100.orbax-checkpoint-tmp-1").mkdir(parents=True)
    assert latest_progress(tmp_path) is None


def test_a_damaged_checkpoint_is_named(tmp_path):
    (tmp_path / "checkpoints" / "000100").mkdir(parents=True)
    with pytest.raises(InputError, match="checkpoints/000100/description/training.json"):
        latest_progress(tmp_path)
