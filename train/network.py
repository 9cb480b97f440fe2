"""The model as training sees it: what is computed with, in what precision, and what is kept."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from llama_jax.config import ModelConfig
from llama_jax.model import Operators, Params, forward
from train.lora import LoraConfig, with_adapters


@dataclass(frozen=True)
class Network:
    """A model ready for a mesh.

    Attributes:
      config: the model.
      operators: for the mesh that the parameters lie on.
      token_log_probs: `(hidden [B, T, D], head [V, D], targets [B, T])` -> log-probabilities and
        log-normalisers, float32 `[B, T]`; see `losses/token_log_probs.py`.
      dtype: of activations.
      lora: what is trained beside frozen weights; None where the weights themselves are.
      remat: one of `llama_jax.model.REMAT_POLICIES`.
    """

    config: ModelConfig
    operators: Operators
    token_log_probs: Callable[..., tuple[jax.Array, jax.Array]]
    dtype: jnp.dtype
    remat: str
    lora: LoraConfig | None = None

    def assemble(self, params: Params, frozen: dict[str, Any]) -> Params:
        """The model's parameters, from those that are trained and those that are not."""
        return params if self.lora is None else with_adapters(frozen["base"], params, self.lora)

    def hidden(self, params: Params, tokens: jax.Array, segment_ids: jax.Array) -> jax.Array:
        """Hidden states `[B, T, D]` in `dtype` of packed rows `[B, T]`."""
        return forward(
            params,
            tokens,
            config=self.config,
            operators=self.operators,
            segment_ids=segment_ids,
            dtype=self.dtype,
            remat=self.remat,
        )
