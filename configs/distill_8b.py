"""Llama 3.1 8B from the base model to one that answers as 70B would."""

import dataclasses

from configs.models import MODELS
from configs.sft_8b import sft_8b
from train.config import CheckpointConfig, RunConfig
from train.losses.distillation import Distillation
from train.schedules import WarmupCosine
from train.stages.distillation import distillation_stage
from train.stages.mixtures import mixture_of
from train.stages.sft import LLAMA_3_SFT_MIX, PEAK_RATE

NUM_STEPS = 2000


def distill_8b() -> RunConfig:
    """Llama 3.1 8B, distilled on dialogs from Llama 3.1 70B Instruct.

    Command: on every host, `llama-jax train distill_8b`, in the folder of `sft_8b`, from whose base
      model it starts and whose data it reads; `weights/llama31_70b_instruct` is the teacher, with
      its tokenizer. To store what the teacher says once and not to ask it again in each epoch or
      run: `--stages.0.loss.reference stored --stages.0.loss.top-k 32`, which takes 2.1 MB of disk a
      row.
    Hardware: TPU v5p:2x2x4, 16 chips; on 64 H100 `configs/meshes.py` has `H100_64`, with
      `--stages.0.batch.0.rows 64 --stages.0.batch.0.micro-batches 1`. The teacher's weights are 8.8
      GB on each of 16 chips.
    Time: an estimate, nothing was measured: 2,000 steps x 32 rows x 8,192 tokens x (5.15e10 + the
      teacher's 1.50e11 FLOPs) is 1.1e20; 16 chips x 459e12 FLOP/s x 0.5 utilisation is 3.7e15/s: 8
      hours.
    Expected loss: not published, and not measured here.

    Nothing of it is published for Llama 3.1; rate, mix and schedule are those of `sft_8b`, and the
    divergence is the forward one without labels (arXiv 1503.02531).
    """
    rate = WarmupCosine(PEAK_RATE, end=PEAK_RATE / 10, warmup_steps=50, decay_steps=NUM_STEPS)
    return dataclasses.replace(
        sft_8b(),
        output="runs/distill_8b",
        stages=(
            distillation_stage(
                num_steps=NUM_STEPS,
                row_length=8192,
                rows=32,
                micro_batches=2,
                learning_rate=rate,
                mixture=mixture_of(LLAMA_3_SFT_MIX, data="data/sft", row_length=8192),
                loss=Distillation("in_memory"),
                reference="weights/llama31_70b_instruct",
                reference_model=MODELS["llama31_70b"],
            ),
        ),
        checkpoint=CheckpointConfig(every_steps=200, keep=3, best_set="held_out"),
        evaluate_every_steps=200,
    )
