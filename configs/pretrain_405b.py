"""Llama 3.1 405B from random weights to 15.6T tokens, as published where it is published."""

from configs.meshes import V5P_4096
from configs.models import MODELS, before_long_context
from train.config import CheckpointConfig, EvaluationSet, OptimizerConfig, RunConfig
from train.schedules import WarmupCosine
from train.stages.mixtures import LLAMA_3_MIX
from train.stages.pretrain import RampStep, pretrain_stages

MEBI = 1 << 20

# arXiv 2407.21783, section 3.4.1; 16M is 16,777,216 in its table 4, so M of a batch is 2^20. The
# 252M tokens of the first step are 60 whole steps, which is what the paper's number rounds.
LLAMA_3_RAMP = (
    RampStep(after_tokens=0, row_length=4096, tokens_per_step=4 * MEBI),
    RampStep(after_tokens=60 * 4 * MEBI, row_length=8192, tokens_per_step=8 * MEBI),
    RampStep(after_tokens=2_870_000_000_000, row_length=8192, tokens_per_step=16 * MEBI),
)

# Section 3.4.1 has no value for betas, epsilon and clipping. These are Llama 2's (arXiv 2307.09288,
# section 2.2). Weight decay 0.1 is what Llama 3's scaling-law runs had (section 3.2.1).
LLAMA_3_OPTIMIZER = OptimizerConfig(
    beta1=0.9, beta2=0.95, epsilon=1e-5, weight_decay=0.1, clip_norm=1.0
)


def held_out(batch_rows: int, *, data: str = "data") -> tuple[EvaluationSet, ...]:
    """A held-out set for each kind of data, 1,024 rows of 8,192: 8.4M tokens each."""
    return tuple(
        EvaluationSet(kind, f"{data}/held_out/{kind}", num_rows=1024, batch_rows=batch_rows)
        for kind in LLAMA_3_MIX
    )


def pretrain_405b() -> RunConfig:
    """Llama 3.1 405B, 15.6T tokens with 4,096 and then 8,192 tokens a row.

    Command: on every host, `llama-jax train pretrain_405b`, in a folder that all hosts share and
      that holds `tokenizer` and `data` (rows of 4,096 and of 8,192 for each kind of the mix).
    Hardware: TPU v5p:16x16x16, 4,096 chips; on 8,192 H100 `configs/meshes.py` has `H100_8192`.
    Time: an estimate, nothing was measured: 15.6e12 tokens x 2.52e12 FLOPs at 8,192, causal, is
      3.9e25; 4,096 chips x 459e12 FLOP/s x 0.5 utilisation is 9.4e17/s: 485 days. (Meta's card:
      30.84M H100 hours.)
    Expected loss: not published, and not measured here.

    1.1M steps; the cosine is laid over 1.2M, as published. Not published, and chosen here: the
    optimiser's betas, epsilon and clipping (Llama 2's), the initial distribution, how often to
    save.
    """
    rate = WarmupCosine(peak=8e-5, end=8e-7, warmup_steps=8000, decay_steps=1_200_000)
    return RunConfig(
        output="runs/pretrain_405b",
        model=before_long_context(MODELS["llama31_405b"]),
        tokenizer="tokenizer",
        stages=pretrain_stages(
            LLAMA_3_RAMP,
            num_tokens=15_600_000_000_000,
            learning_rate=rate,
            mix=LLAMA_3_MIX,
            data="data",
        ),
        checkpoint=CheckpointConfig(every_steps=200, keep=5),
        optimizer=LLAMA_3_OPTIMIZER,
        mesh=V5P_4096,
        evaluations=held_out(batch_rows=1024),
        evaluate_every_steps=2000,
    )
