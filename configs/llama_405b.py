"""The whole of Llama 3.1 405B in one schedule: pretraining, long context, annealing."""

import dataclasses

from configs.anneal_405b import anneal_405b
from configs.long_context_405b import long_context_405b
from configs.meshes import V5P_1024_LONG
from configs.models import MODELS
from configs.pretrain_405b import held_out, pretrain_405b
from train.config import BatchStep, RunConfig


def llama_405b() -> RunConfig:
    """Llama 3.1 405B from random weights to its average: nine stages, 16.4T tokens.

    Command: on every host, `llama-jax train llama_405b`; the folder holds the data of
      `pretrain_405b`, `long_context_405b` and `anneal_405b`.
    Hardware: TPU v5p:8x8x16, 1,024 chips: the 128 rows of 128K in a step are the most that rows can
      be split, and a run has one mesh. The three runs by themselves use 4,096 chips for the first.
    Time: an estimate, nothing was measured: 4.2e25 FLOPs; 1,024 chips x 459e12 FLOP/s x 0.5
      utilisation is 2.35e17/s: 5.7 years.
    Expected loss: not published, and not measured here.

    The moments of AdamW and the count of steps go through all stages. Annealing has steps of 16M
    tokens here, so its 40M tokens are 3 steps.
    """
    pretrain, long_context, anneal = pretrain_405b(), long_context_405b(), anneal_405b()
    (last,) = anneal.stages
    last = dataclasses.replace(
        last,
        batch=(BatchStep(0, 128),),
        average_last=3,
        # Stages before have set this scaling already; it is said here for whoever reads it alone.
        rope_scaling=MODELS["llama31_405b"].rope_scaling,
    )
    return dataclasses.replace(
        pretrain,
        output="runs/llama_405b",
        # None until the first stage that sets a scaling.
        model=dataclasses.replace(MODELS["llama31_405b"], rope_scaling=None),
        stages=(*pretrain.stages, *long_context.stages, last),
        mesh=V5P_1024_LONG,
        evaluations=held_out(batch_rows=128),
    )
