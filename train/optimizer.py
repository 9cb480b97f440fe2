"""AdamW by optax: clipping by the global norm, moments, decay of matrices.

The learning rate is not in it: the step multiplies with it, so that one optimiser state serves
every stage, whatever its schedule.
"""

import jax
import jax.numpy as jnp
import optax

from llama_jax.model import Params
from train.config import OptimizerConfig

# Every parameter's name is in one of the two; an unknown one is an error and not undecayed.
DECAYED = {
    "embedding", "head", "reward_head", "query", "key", "value", "output", "gate", "up", "down",
    "lora_down", "lora_up",
}  # fmt: skip
NOT_DECAYED = {"scale"}


def make_optimizer(config: OptimizerConfig) -> optax.GradientTransformation:
    """Gradients -> directions; parameters move by `-learning_rate * direction`."""
    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.scale_by_adam(
            b1=config.beta1,
            b2=config.beta2,
            eps=config.epsilon,
            mu_dtype=jnp.dtype(config.moment_dtype),
        ),
        optax.add_decayed_weights(config.weight_decay, mask=decay_mask),
    )


def decay_mask(params: Params) -> Params:
    """A tree like `params`: whether a parameter decays. Raises `ValueError` for an unknown name."""

    def decays(path: tuple, _) -> bool:
        name = path[-1].key
        if name not in DECAYED | NOT_DECAYED:
            raise ValueError(f"parameter {jax.tree_util.keystr(path)}: not known to decay or not")
        return name in DECAYED

    return jax.tree_util.tree_map_with_path(decays, params)
