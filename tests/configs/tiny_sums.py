"""`smollm2_sums` at the size of a test: a model of two layers that begins with random weights, a
byte for a token, and questions of yes or no."""

import dataclasses
import json
from pathlib import Path

import jax

from configs.smollm2_sums import SmolLM2Sums, smollm2_sums, smollm2_sums_sft
from llama_jax.checkpoints.save import save_checkpoint
from llama_jax.model import init_params
from tests.train.chat_runs import MODEL, ROW_LENGTH, write_tokenizer
from train.config import BatchStep, CheckpointConfig, RunConfig
from train.schedules import WarmupCosine


def write_base(folder: Path) -> None:
    """The random model, with a tokenizer and a chat template."""
    save_checkpoint(folder, MODEL, init_params(MODEL, jax.random.key(0)), format="hf")
    write_tokenizer(folder)


def tiny_sums() -> SmolLM2Sums:
    """The same steps on other questions, with other trainings."""
    return dataclasses.replace(
        smollm2_sums(),
        base="base",
        task="calendar_arithmetic",
        task_config=json.dumps({"tasks": ["is_leap_year"]}),
        train=240,
        held_out=24,
        samples=2,
        max_length=256,
        row_length=ROW_LENGTH,
        sft=f"{__file__}:tiny_sft",
        selected=f"{__file__}:tiny_selected",
    )


def tiny_sft() -> RunConfig:
    return _run(20)


def tiny_selected() -> RunConfig:
    return _run(6)


def _run(num_steps: int) -> RunConfig:
    run = smollm2_sums_sft()
    stage = dataclasses.replace(
        run.stages[0],
        row_length=ROW_LENGTH,
        batch=(BatchStep(0, 4),),
        num_tokens=num_steps * 4 * ROW_LENGTH,
        learning_rate=WarmupCosine(1e-2, end=1e-3, warmup_steps=2, decay_steps=num_steps),
    )
    return dataclasses.replace(
        run,
        model=MODEL,
        tokenizer="base",
        initial_weights="base",
        stages=(stage,),
        checkpoint=CheckpointConfig(every_steps=2, keep=1),
        compute_dtype="float32",
    )
