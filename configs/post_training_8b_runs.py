"""The three trainings of a round of `post_training_8b`: those of the recipes, each on one folder of
rows that the round has made."""

import dataclasses

from configs.dpo_8b import dpo_8b
from configs.reward_8b import reward_8b
from configs.sft_8b import sft_8b
from train.config import RunConfig, Source


def round_reward_8b() -> RunConfig:
    """Llama 3.1 8B, the reward model of one round.

    Command: `llama-jax train round_reward_8b`, as a step of `llama-jax post-train
      post_training_8b`, which says where rows and output are.
    Hardware: TPU v5p:2x2x4, 16 chips.
    Time: an estimate, nothing was measured: 4 hours, see `reward_8b`.
    Expected loss: not published, and not measured here.
    """
    return _of_one_folder(reward_8b(), "reward")


def round_sft_8b() -> RunConfig:
    """Llama 3.1 8B, the fine-tuning of one round.

    Command: `llama-jax train round_sft_8b`, as a step of `llama-jax post-train post_training_8b`,
      which says where rows and output are.
    Hardware: TPU v5p:2x2x4, 16 chips.
    Time: an estimate, nothing was measured: 17 hours, see `sft_8b`.
    Expected loss: not published, and not measured here.
    """
    return _of_one_folder(sft_8b(), "sft")


def round_dpo_8b() -> RunConfig:
    """Llama 3.1 8B, the DPO of one round.

    Command: `llama-jax train round_dpo_8b`, as a step of `llama-jax post-train post_training_8b`,
      which says where rows, weights and output are.
    Hardware: TPU v5p:2x2x4, 16 chips.
    Time: an estimate, nothing was measured: 1.4 hours, see `dpo_8b`.
    Expected loss: not published, and not measured here.
    """
    return _of_one_folder(dpo_8b(), "dpo")


def _of_one_folder(run: RunConfig, name: str) -> RunConfig:
    """`run` on one folder of rows, for shares were settled when rows were chosen."""
    (stage,), (held_out,) = run.stages, run.evaluations
    rows = Source("rows", f"rounds/{name}_rows", 1.0)
    return dataclasses.replace(
        run,
        output=f"rounds/{name}",
        stages=(dataclasses.replace(stage, mixture=(rows,)),),
        evaluations=(dataclasses.replace(held_out, path=f"rounds/held_out_{name}"),),
    )
