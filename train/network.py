"""The model as training sees it: what is computed with, in what precision, and what is kept."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from llama_jax.config import ModelConfig
from llama_jax.model import Operators, Params, forward
from train.lora import LoraConfig, with_adapters
from train.losses.token_log_probs import token_log_probs


@dataclass(frozen=True)
class Network:
    """A model ready for a mesh.

    Attributes:
      config: the model.
      operators: for the mesh that the parameters lie on.
      sharded_log_probs: makes a function of one device's part of a head, such as that of
        `losses/token_log_probs.py`, one of whole arrays; see `sharding/sharded_log_probs.py`.
      dtype: of activations.
      lora: what is trained beside frozen weights; None where the weights themselves are.
      remat: one of `llama_jax.model.REMAT_POLICIES`.
      teacher: the model that the loss compares with, where it is another one than `config`.
    """

    config: ModelConfig
    operators: Operators
    sharded_log_probs: Callable[..., Callable[..., Any]]
    dtype: jnp.dtype
    remat: str
    lora: LoraConfig | None = None
    teacher: ModelConfig | None = None

    def of_teacher(self) -> "Network":
        """The model that the loss compares with, on the same mesh."""
        return dataclasses.replace(self, config=self.teacher or self.config, teacher=None)

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

    def token_log_probs(
        self, hidden: jax.Array, head: jax.Array, targets: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Log-probabilities of `targets` `[B, T]` and log-normalisers, float32 `[B, T]`."""
        return self.sharded_log_probs(token_log_probs)(hidden, head, targets)
