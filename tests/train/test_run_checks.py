"""One mistake at a time in a run that is right: each is one line that begins with the field."""

import dataclasses

import pytest

from configs.tiny_cpu import tiny_cpu
from llama_jax.errors import InputError
from sharding.mesh import MeshShape
from train.config import BatchStep, CheckpointConfig, Gate, ProfileWindow, Source
from train.losses.bradley_terry import BradleyTerry
from train.losses.cross_entropy import CrossEntropy
from train.losses.dpo import Dpo
from train.run_checks import check_run
from train.schedules import Linear, WarmupCosine

GATE = Gate("plays_unseen", 0.01, 1.0, 8, 1000, 1, "stop")
NAN, INFINITY = float("nan"), float("inf")


def replaced(value, path, new):
    """`value` with what is at `path`, such as `stages[1].batch[0].rows`, replaced by `new`."""
    head, _, rest = path.replace("[", ".").replace("]", "").partition(".")
    if isinstance(value, tuple):
        index = int(head)
        part = replaced(value[index], rest, new) if rest else new
        return (*value[:index], part, *value[index + 1 :])
    part = replaced(getattr(value, head), rest, new) if rest else new
    return dataclasses.replace(value, **{head: part})


# Field -> (value, what the message says, beginning with the field to change).
MISTAKES = {
    "mesh": (MeshShape(fsdp=3), "mesh data 1 x stage 1 x fsdp 3"),
    "mesh.context": (2, "mesh.context: must be 1"),
    "mesh.stage": (2, "mesh.stage: must be 1"),
    "mesh.tensor": (8, "mesh.tensor: 8 does not divide model.num_heads 4"),
    "mesh.tensor#kv": (4, "mesh.tensor: 4 does not divide model.num_kv_heads 2"),
    "model.feed_forward_dim": (385, "mesh.tensor: 2 does not divide model.feed_forward_dim 385"),
    "model.vocab_size": (263, "mesh.tensor: 2 does not divide model.vocab_size 263"),
    "model.model_dim": (130, "mesh.fsdp: 4 does not divide model.model_dim 130"),
    "stages[0].row_length": (255, "mesh.tensor: 2 does not divide stages[0].row_length 255"),
    "stages[1].row_length": (512, "stages[1].row_length: 512 is over model.context_length 256"),
    "stages[1].row_length#0": (0, "stages[1].row_length: must be at least 1, not 0"),
    "stages[1].num_tokens": (0, "stages[1].num_tokens: must be at least 1"),
    "stages[1].batch[0].micro_batches": (0, "stages[1].batch[0].micro_batches: must be at least 1"),
    "stages[1].batch[0].micro_batches#": (
        8, "stages[1].batch[0].rows: 16 is not a multiple of 32 = 8 micro-batches x data 1 x fsdp",
    ),
    "stages[0].batch[1].rows": (18, "stages[0].batch[1].rows: 18 is not a multiple of 4 = 1 micro"),
    "stages[0].batch[1].rows#0": (0, "stages[0].batch[1].rows: must be at least 1"),
    "stages[0].batch[0].after_tokens": (5, "stages[0].batch[0].after_tokens: must be 0, not 5"),
    "stages[0].batch": ((), "stages[0].batch: must have at least one"),
    "stages[0].batch#": (
        (BatchStep(0, 8), BatchStep(9, 8), BatchStep(9, 8)),
        "stages[0].batch[2].after_tokens: must be over 9",
    ),
    "stages": ((), "stages: must have at least one"),
    "stages[1].name": ("pretrain", "stages[1].name: pretrain is there twice"),
    "stages[0].name": ("", "stages[0].name: must not be empty"),
    "stages[0].mixture": ((), "stages[0].mixture: must have at least one"),
    "stages[0].mixture#": (
        (Source("a", "x", 1.0), Source("a", "y", 1.0)), "stages[0].mixture[1].name: is there twice",
    ),
    "stages[0].mixture[0].weight": (0.0, "stages[0].mixture[0].weight: must be over 0"),
    "stages[0].mixture[0].weight#": (NAN, "stages[0].mixture[0].weight: must be over 0, not nan"),
    "stages[0].average_last": (-1, "stages[0].average_last: must be at least 0"),
    "stages[1].average_last#": (41, "stages[1].average_last: 41 is over the 40 steps of the stage"),
    "stages[0].average_last#gate": (2, "stages[0].gate: cannot stand with average_last"),
    "stages[0].rope_theta": (-1.0, "stages[0].rope_theta: must be over 0"),
    "stages[0].learning_rate": (WarmupCosine(0.0, 0.0, 1, 2), "stages[0].learning_rate.peak: must"),
    "stages[0].learning_rate#1": (WarmupCosine(1.0, 0.0, 2, 2), "stages[0].learning_rate.decay"),
    "stages[0].learning_rate#2": (Linear(1.0, -0.1), "stages[0].learning_rate.end: must"),
    "stages[0].gate.short_set": ("x", "stages[0].gate.short_set: 'x' is no evaluation set (plays_"),
    "stages[0].gate.on_failure": ("wait", "stages[0].gate.on_failure: must be one of stop, cont"),
    "stages[0].gate.needle_accuracy": (100.0, "stages[0].gate.needle_accuracy: must be a share"),
    "stages[0].gate.num_needles": (0, "stages[0].gate.num_needles: must be at least 1"),
    "stages[0].gate.extra_tokens": (0, "stages[0].gate.extra_tokens: must be at least 1"),
    "evaluations[0].batch_rows": (30, "mesh.data * mesh.fsdp: 4 does not divide evaluations[0]"),
    "evaluations[0].num_rows": (0, "evaluations[0].num_rows: must be at least 1"),
    "evaluations": ((), "stages[0].gate.short_set: 'plays_unseen' is no evaluation set (there are"),
    "checkpoint.best_set": ("x", "checkpoint.best_set: 'x' is no evaluation set"),
    "checkpoint.every_steps": (0, "checkpoint.every_steps: must be at least 1"),
    "checkpoint.keep": (0, "checkpoint.keep: must be at least 1"),
    "remat": ("some", "remat: must be one of none, full"),
    "attention": (("flash",), "attention: must be auto alone, or of reference, chunked, mos"),
    "attention#both": (("auto", "chunked"), "attention: must be auto alone, or of reference"),
    "attention#none": ((), "attention: give auto, or names in order of preference"),
    "matmul": ("fp8", "matmul: must be one of bfloat16, fp8_tensorwise, fp8_rowwise, fp8"),
    "matmul_implementation": ("cuda", "matmul_implementation: must be one of auto, xla, cublas"),
    "matmul_implementation#": ("xla", "matmul_implementation: xla is for 8-bit products"),
    "compute_dtype": ("float16", "compute_dtype: must be one of float32, bfloat16, not 'float16'"),
    "param_dtype": ("int8", "param_dtype: must be one of"),
    "param_dtype#": ("bfloat16", "param_dtype: bfloat16 is less precise than compute_dtype"),
    "optimizer.moment_dtype": ("fp32", "optimizer.moment_dtype: must be one of"),
    "optimizer.beta1": (1.0, "optimizer.beta1: must be from 0 to below 1"),
    "optimizer.epsilon": (0.0, "optimizer.epsilon: must be over 0"),
    "optimizer.clip_norm": (INFINITY, "optimizer.clip_norm: must be over 0, not inf"),
    "optimizer.spike_factor": (0.5, "optimizer.spike_factor: must be over 1"),
    "optimizer.max_skipped": (0, "optimizer.max_skipped: must be at least 1"),
    "seed": (-1, "seed: must be from 0"),
    "stages[0].loss.z_loss": (NAN, "stages[0].loss.z_loss: must be at least 0, not nan"),
    "stages[0].loss": (BradleyTerry(), "stages[0].loss: BradleyTerry trains a reward model"),
    "stages[0].loss#dpo": (Dpo(), "stages[0].reference: name the checkpoint of the reference"),
    "stages[0].loss#beta": (Dpo(beta=0.0), "stages[0].loss.beta: must be over 0"),
    "stages[0].reference": ("x", "stages[0].reference: CrossEntropy compares with none"),
    "model.reward_head": (True, "stages[0].loss: CrossEntropy trains a policy, and model"),
    "evaluations[0].loss#rewards": (BradleyTerry(), "evaluations[0].loss: is not for a model"),
    "evaluations[0].loss#dpo": (Dpo(), "evaluations[0].loss: stored reference, and stage pretrain"),
    "evaluations[0].loss": (CrossEntropy(-1.0), "evaluations[0].loss.z_loss: must be at least 0"),
    "vocab_chunk": (0, "vocab_chunk: must be at least 1"),
    "evaluate_every_steps": (-1, "evaluate_every_steps: must be at least 0"),
    "log_every_steps": (0, "log_every_steps: must be at least 1"),
    "profile": (ProfileWindow(0, 1), "profile.first_step: must be at least 1"),
}  # fmt: skip


def right_run():
    run = dataclasses.replace(tiny_cpu(), mesh=MeshShape(fsdp=4, tensor=2))
    return replaced(run, "stages[0].gate", GATE)


def test_evaluations_need_a_set():
    run = dataclasses.replace(
        tiny_cpu(), evaluations=(), checkpoint=CheckpointConfig(every_steps=1)
    )
    with pytest.raises(InputError, match="^evaluate_every_steps: 100, and there are no evaluat"):
        check_run(run, 1)
    check_run(dataclasses.replace(run, evaluate_every_steps=0), 1)


def test_eight_bits_need_a_block_between_the_first_and_the_last():
    run = dataclasses.replace(right_run(), matmul="fp8_tensorwise")
    check_run(run, 8)
    with pytest.raises(InputError, match="^matmul: fp8_tensorwise would quantise nothing: of 2"):
        check_run(replaced(run, "model.num_layers", 2), 8)


def test_a_run_that_is_right_passes():
    assert check_run(right_run(), 8) == MeshShape(fsdp=4, tensor=2)
    assert check_run(tiny_cpu(), 4) == MeshShape(fsdp=4)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_a_line_that_names_its_field(mistake):
    value, message = MISTAKES[mistake]
    path = mistake.partition("#")[0]
    num_devices = 8
    run = replaced(right_run(), path, value)
    if path.startswith("mesh."):
        run = replaced(run, "mesh.fsdp", -1)
    with pytest.raises(InputError) as error:
        check_run(run, num_devices)
    assert str(error.value).startswith(message) and "\n" not in str(error.value)
