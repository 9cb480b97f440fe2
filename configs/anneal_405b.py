"""The last 40M tokens of Llama 3.1 405B, and the average that is published."""

import dataclasses

from configs.long_context_405b import LAST_RATE, long_context_405b
from configs.meshes import V5P_512_LONG
from configs.models import MODELS
from configs.pretrain_405b import held_out
from train.config import CheckpointConfig, RunConfig
from train.stages.anneal import anneal_stage, upweighted
from train.stages.mixtures import LLAMA_3_MIX

# How much is not published for the final annealing; 30 % of new data beside 70 % of the default mix
# is what Llama 3's annealing experiments had (arXiv 2407.21783, section 3.1.3).
MIX = upweighted(LLAMA_3_MIX, {"high_quality": 1.0}, share=0.3)


def anneal_405b() -> RunConfig:
    """Llama 3.1 405B, the learning rate to 0 over 40M tokens at 128K, then the average.

    Command: on every host, `llama-jax train anneal_405b`, in the folder of `long_context_405b`,
      whose weights it starts from; `data/131072` holds each kind of the mix and `high_quality`.
    Hardware: TPU v5p:8x8x8, 512 chips: 64 rows a step, so 40M tokens are 5 steps.
    Time: an estimate, nothing was measured: 42M tokens x 4.0e12 FLOPs (128K, causal) is 1.7e20; 512
      chips x 459e12 FLOP/s x 0.5 utilisation is 1.2e17/s: 24 minutes, without saving.
    Expected loss: not published, and not measured here.

    40M tokens is as printed (section 3.4.3); with `--stages.0.num-tokens 40000000000` it is the 40B
    of the paper's annealing experiments. Batch, mix and number of checkpoints are not published.
    The moments of AdamW begin anew; the run `llama_405b` keeps them.
    """
    stage = anneal_stage(
        num_tokens=40_000_000,
        row_length=131_072,
        rows=64,
        start_rate=LAST_RATE,
        mix=MIX,
        data="data",
        average_last=5,
    )
    return dataclasses.replace(
        long_context_405b(),
        output="runs/anneal_405b",
        initial_weights="runs/long_context_405b/weights",
        model=MODELS["llama31_405b"],
        stages=(stage,),
        checkpoint=CheckpointConfig(every_steps=1, keep=5),
        mesh=V5P_512_LONG,
        evaluations=held_out(batch_rows=64),
        evaluate_every_steps=0,
    )
