"""Llama 3.1 8B, tuned on dialogs, to one whose answers people prefer."""

import dataclasses

from configs.sft_8b import sft_8b
from train.config import CheckpointConfig, EvaluationSet, RunConfig
from train.schedules import WarmupCosine
from train.stages.dpo import LLAMA_3_DPO, LLAMA_3_PREFERENCE_MIX, PEAK_RATE, dpo_stage
from train.stages.mixtures import mixture_of

NUM_STEPS = 1000


def dpo_8b() -> RunConfig:
    """Llama 3.1 8B, direct preference optimisation.

    Command: on every host, `llama-jax train dpo_8b`, in the folder of `sft_8b`, whose weights it
      starts from and compares with; `data/dpo/8192/KIND` for each kind of the mix and `held_out`
      are made by `llama-jax data preferences FILES --for dpo --tokenizer weights/llama31_8b
      --row-length 8192 --output data/dpo/8192/KIND`.
    Hardware: TPU v5p:2x2x4, 16 chips; on 64 H100 `configs/meshes.py` has `H100_64`, with
      `--stages.0.batch.0.rows 64 --stages.0.batch.0.micro-batches 1`.
    Time: an estimate, nothing was measured: 1,000 steps x 32 rows x 8,192 tokens x 5.15e10 FLOPs is
      1.4e19, and a third of it once more for the reference's log-probabilities, which are computed
      before the first step and stored; 16 chips x 459e12 FLOP/s x 0.5 utilisation is 3.7e15/s: 1.4
      hours.
    Expected loss: not published, and not measured here. It begins at log 2 = 0.693 and 0.2 times
      the mean negative log-likelihood of a token of a chosen answer.

    Published are the rate 1e-5, beta 0.1, the weight 0.2 of the likelihood, the mask over tokens
    that format and the mix (arXiv 2407.21783, section 4.1.4 and table 6). Batch, steps and schedule
    are chosen here. The form of the project's first description is `--stages.0.loss.reference none
    --stages.0.loss.nll-coefficient 0`.
    """
    rate = WarmupCosine(PEAK_RATE, end=PEAK_RATE / 10, warmup_steps=50, decay_steps=NUM_STEPS)
    return dataclasses.replace(
        sft_8b(),
        output="runs/dpo_8b",
        initial_weights="runs/sft_8b/weights",
        stages=(
            dpo_stage(
                num_steps=NUM_STEPS,
                row_length=8192,
                rows=32,
                micro_batches=2,
                learning_rate=rate,
                mixture=mixture_of(LLAMA_3_PREFERENCE_MIX, data="data/dpo", row_length=8192),
                loss=LLAMA_3_DPO,
            ),
        ),
        checkpoint=CheckpointConfig(every_steps=100, keep=3, best_set="held_out"),
        evaluations=(
            EvaluationSet("held_out", "data/dpo/8192/held_out", num_rows=128, batch_rows=64),
        ),
        evaluate_every_steps=100,
    )
