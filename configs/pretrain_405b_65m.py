"""The 405B pretraining with batches that grow to 65M tokens instead of 16M."""

import dataclasses

from configs.pretrain_405b import LLAMA_3_RAMP, MEBI, pretrain_405b
from train.config import RunConfig
from train.schedules import WarmupCosine
from train.stages.mixtures import LLAMA_3_MIX
from train.stages.pretrain import RampStep, pretrain_stages


def pretrain_405b_65m() -> RunConfig:
    """Llama 3.1 405B with a last batch of 67,108,864 tokens: 8,192 rows of 8,192.

    Command: on every host, `llama-jax train pretrain_405b_65m`; the folder as for `pretrain_405b`.
    Hardware: TPU v5p:16x16x16, 4,096 chips; the last steps have four micro-batches of what
      `pretrain_405b` has at once.
    Time: an estimate: the FLOPs are those of `pretrain_405b`, 485 days at 50 % utilisation.
    Expected loss: not known. Four times the published batch, at the published peak rate, in half
      the steps: a variant for machines that want it, not what Llama 3.1 was trained with.
    """
    base = pretrain_405b()
    # 60 + 342,100 + 189,695 steps, so the cosine of 1.2M would end at half its height.
    rate = WarmupCosine(peak=8e-5, end=8e-7, warmup_steps=8000, decay_steps=532_000)
    ramp = (*LLAMA_3_RAMP[:2], RampStep(LLAMA_3_RAMP[2].after_tokens, 8192, 64 * MEBI))
    stages = pretrain_stages(
        ramp,
        num_tokens=15_600_000_000_000,
        learning_rate=rate,
        mix=LLAMA_3_MIX,
        data="data",
        tokens_at_once=16 * MEBI,
    )
    return dataclasses.replace(base, output="runs/pretrain_405b_65m", stages=stages)
