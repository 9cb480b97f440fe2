"""Llama 3.1 70B from random weights to 15T tokens."""

import dataclasses

from configs.meshes import V5P_1024
from configs.models import MODELS, before_long_context
from configs.pretrain_405b import LLAMA_3_RAMP, pretrain_405b
from train.config import RunConfig
from train.schedules import WarmupCosine
from train.stages.mixtures import LLAMA_3_MIX
from train.stages.pretrain import pretrain_stages


def pretrain_70b() -> RunConfig:
    """Llama 3.1 70B, 15T tokens.

    Command: on every host, `llama-jax train pretrain_70b`; the folder as for `pretrain_405b`.
    Hardware: TPU v5p:8x8x16, 1,024 chips; on 512 H100 `configs/meshes.py` has `H100_512`.
    Time: an estimate, nothing was measured: 15e12 tokens x 4.49e11 FLOPs at 8,192, causal, is
      6.7e24; 1,024 chips x 459e12 FLOP/s x 0.5 utilisation is 2.35e17/s: 332 days. (Meta's card:
      7.0M H100 hours.)
    Expected loss: not published, and not measured here.

    Published for 70B is the peak rate 1.5e-4 (arXiv 2407.21783, table 3) and "15T+" tokens (the
    card); warm-up, length of the cosine and batch ramp are those of 405B, to which the paper calls
    the recipes similar.
    """
    rate = WarmupCosine(peak=1.5e-4, end=1.5e-6, warmup_steps=8000, decay_steps=1_200_000)
    return dataclasses.replace(
        pretrain_405b(),
        output="runs/pretrain_70b",
        model=before_long_context(MODELS["llama31_70b"]),
        stages=pretrain_stages(
            LLAMA_3_RAMP,
            num_tokens=15_000_000_000_000,
            learning_rate=rate,
            mix=LLAMA_3_MIX,
            data="data",
        ),
        mesh=V5P_1024,
    )
