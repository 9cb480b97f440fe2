"""Llama 3.1 8B from the base model to one that answers."""

from configs.meshes import V5P_16
from configs.models import MODELS
from train.config import CheckpointConfig, EvaluationSet, OptimizerConfig, RunConfig
from train.schedules import WarmupCosine
from train.stages.mixtures import mixture_of
from train.stages.sft import LLAMA_3_SFT_MIX, PEAK_RATE, sft_stage

NUM_STEPS = 8500


def sft_8b() -> RunConfig:
    """Llama 3.1 8B, supervised fine-tuning on dialogs.

    Command: on every host, `llama-jax train sft_8b`, in a folder that all hosts share and that
      holds `weights/llama31_8b` (the base model, any format, with its tokenizer) and
      `data/sft/8192/KIND` for each kind of the mix and `held_out`, each made by `llama-jax data
      dialogs FILES --tokenizer weights/llama31_8b --row-length 8192 --output data/sft/8192/KIND`.
    Hardware: TPU v5p:2x2x4, 16 chips; on 64 H100 `configs/meshes.py` has `H100_64`, with
      `--stages.0.batch.0.micro-batches 1`.
    Time: an estimate, nothing was measured: 8,500 steps x 64 rows x 8,192 tokens x 5.15e10 FLOPs is
      2.3e20; 16 chips x 459e12 FLOP/s x 0.5 utilisation is 3.7e15/s: 17 hours.
    Expected loss: not published, and not measured here.

    Published are the rate 1e-5, 8,500 to 9,000 steps for the largest models, and the mix
    (arXiv 2407.21783, section 4.1.3 and table 7). Batch, schedule and the absence of weight decay
    are chosen here.
    """
    rate = WarmupCosine(PEAK_RATE, end=PEAK_RATE / 10, warmup_steps=200, decay_steps=NUM_STEPS)
    return RunConfig(
        output="runs/sft_8b",
        model=MODELS["llama31_8b"],
        tokenizer="weights/llama31_8b",
        initial_weights="weights/llama31_8b",
        stages=(
            sft_stage(
                num_steps=NUM_STEPS,
                row_length=8192,
                rows=64,
                micro_batches=4,
                learning_rate=rate,
                mixture=mixture_of(LLAMA_3_SFT_MIX, data="data/sft", row_length=8192),
            ),
        ),
        checkpoint=CheckpointConfig(every_steps=500, keep=3, best_set="held_out"),
        optimizer=OptimizerConfig(weight_decay=0.0),
        mesh=V5P_16,
        evaluations=(
            EvaluationSet("held_out", "data/sft/8192/held_out", num_rows=256, batch_rows=64),
        ),
        evaluate_every_steps=500,
        log_every_steps=10,
    )
