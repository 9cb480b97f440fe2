"""Llama 3.1 8B from random weights to 15T tokens."""

import dataclasses

from configs.meshes import V5P_16
from configs.models import MODELS, before_long_context
from configs.pretrain_405b import LLAMA_3_RAMP, MEBI, held_out, pretrain_405b
from train.config import RunConfig
from train.schedules import WarmupCosine
from train.stages.mixtures import LLAMA_3_MIX
from train.stages.pretrain import pretrain_stages


def pretrain_8b() -> RunConfig:
    """Llama 3.1 8B, 15T tokens.

    Command: on every host, `llama-jax train pretrain_8b`; the folder as for `pretrain_405b`.
    Hardware: TPU v5p:2x2x4, 16 chips, the least that is worth a pod; up to 128 with `--mesh.fsdp`
      and their number; on 64 H100 `configs/meshes.py` has `H100_64`.
    Time: an estimate, nothing was measured: 15e12 tokens x 5.15e10 FLOPs at 8,192, causal, is
      7.7e23; 16 chips x 459e12 FLOP/s x 0.5 utilisation is 3.7e15/s: 6.7 years, or 10 months on 128
      chips. (Meta's card: 1.46M H100 hours.)
    Expected loss: not published, and not measured here.

    Published for 8B is the peak rate 3e-4 (arXiv 2407.21783, table 3) and "15T+" tokens (the card);
    warm-up, length of the cosine and batch ramp are those of 405B, to which the paper calls the
    recipes similar. A micro-batch has 1M tokens, on 16 chips 8 rows of 8,192 each (17 GB of block
    inputs): a step has 4 micro-batches at first, 8 from 252M tokens on and 16 from 2.87T on.
    """
    rate = WarmupCosine(peak=3e-4, end=3e-6, warmup_steps=8000, decay_steps=1_200_000)
    return dataclasses.replace(
        pretrain_405b(),
        output="runs/pretrain_8b",
        model=before_long_context(MODELS["llama31_8b"]),
        stages=pretrain_stages(
            LLAMA_3_RAMP,
            num_tokens=15_000_000_000_000,
            learning_rate=rate,
            mix=LLAMA_3_MIX,
            data="data",
            tokens_at_once=MEBI,
        ),
        mesh=V5P_16,
        evaluations=held_out(batch_rows=128),
    )
