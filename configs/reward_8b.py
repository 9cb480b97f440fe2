"""Llama 3.1 8B from the base model to one that scores answers."""

import dataclasses

from configs.sft_8b import sft_8b
from train.config import CheckpointConfig, EvaluationSet, RunConfig
from train.schedules import WarmupCosine
from train.stages.dpo import LLAMA_3_PREFERENCE_MIX
from train.stages.mixtures import mixture_of
from train.stages.reward_model import PEAK_RATE, reward_model_stage

NUM_STEPS = 2000


def reward_8b() -> RunConfig:
    """Llama 3.1 8B, a reward model.

    Command: on every host, `llama-jax train reward_8b`, in the folder of `sft_8b`, from whose base
      model it starts; `data/reward/8192/KIND` for each kind of the mix and `held_out` are made by
      `llama-jax data preferences FILES --for reward --tokenizer weights/llama31_8b --row-length
      8192 --output data/reward/8192/KIND`. Then `llama-jax score runs/reward_8b IN OUT`.
    Hardware: TPU v5p:2x2x4, 16 chips; on 64 H100 `configs/meshes.py` has `H100_64`, with
      `--stages.0.batch.0.micro-batches 1`.
    Time: an estimate, nothing was measured: 2,000 steps x 64 rows x 8,192 tokens x 4.84e10 FLOPs
      (no head) is 5.1e19; 16 chips x 459e12 FLOP/s x 0.5 utilisation is 3.7e15/s: 4 hours.
    Expected loss: not published, and not measured here; it begins near log 2 = 0.693.

    Published is that it starts from the pretrained model, and what it learns from
    (arXiv 2407.21783, section 4.1.2). The rate is Llama 2's; batch, steps and schedule are chosen
    here; Llama 2 saw its data once, so count your rows.
    """
    rate = WarmupCosine(PEAK_RATE, end=PEAK_RATE / 10, warmup_steps=60, decay_steps=NUM_STEPS)
    base = sft_8b()
    return dataclasses.replace(
        base,
        output="runs/reward_8b",
        model=dataclasses.replace(base.model, reward_head=True),
        stages=(
            reward_model_stage(
                num_steps=NUM_STEPS,
                row_length=8192,
                rows=64,
                micro_batches=4,
                learning_rate=rate,
                mixture=mixture_of(LLAMA_3_PREFERENCE_MIX, data="data/reward", row_length=8192),
            ),
        ),
        checkpoint=CheckpointConfig(every_steps=200, keep=3, best_set="held_out"),
        evaluations=(
            EvaluationSet("held_out", "data/reward/8192/held_out", num_rows=128, batch_rows=64),
        ),
        evaluate_every_steps=200,
    )
