"""Everything that a step changes: parameters, moments and a few counters, as one pytree."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from llama_jax.config import ModelConfig
from llama_jax.model import Params, abstract_params
from sharding.placement import param_shardings, replicated


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """The state between two steps.

    Attributes:
      step: int32, steps tried since the run began, skipped ones included.
      params: the model.
      optimizer_state: optax's.
      norm_average: float32, running mean of the gradient norms of accepted steps; 0 before any.
      skipped: int32, steps that changed nothing.
      skipped_in_a_row: int32, how many of them were the last.
    """

    step: jax.Array
    params: Params
    optimizer_state: Any
    norm_average: jax.Array
    skipped: jax.Array
    skipped_in_a_row: jax.Array


def new_state(params: Params, optimizer: optax.GradientTransformation) -> TrainState:
    """The state before the first step."""
    # Each its own array: a buffer that two leaves share cannot be donated.
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        # Of float32 parameters, as a second moment in bfloat16 would stand still.
        optimizer_state=optimizer.init(optax.tree.cast(params, jnp.float32)),
        norm_average=jnp.zeros((), jnp.float32),
        skipped=jnp.zeros((), jnp.int32),
        skipped_in_a_row=jnp.zeros((), jnp.int32),
    )


def abstract_state(
    config: ModelConfig,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    *,
    dtype: jnp.dtype,
) -> TrainState:
    """`abstract_state_of` the whole model, in `dtype`."""
    params = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        abstract_params(config, dtype=dtype),
        param_shardings(config, mesh),
    )
    return abstract_state_of(params, optimizer, mesh)


def abstract_state_of(
    params: Params, optimizer: optax.GradientTransformation, mesh: Mesh
) -> TrainState:
    """`jax.ShapeDtypeStruct`s with shardings: moments lie as their parameters do, scalars
    everywhere. Nothing is allocated.

    Args:
      params: what is trained, `ShapeDtypeStruct`s with shardings.
    """
    state = jax.eval_shape(lambda params: new_state(params, optimizer), params)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, params)
    everywhere = replicated(mesh)
    optimizer_shardings = optax.tree_map_params(
        optimizer,
        lambda _, sharding: sharding,
        state.optimizer_state,
        shardings,
        transform_non_params=lambda _: everywhere,
    )
    rest = dict.fromkeys(("step", "norm_average", "skipped", "skipped_in_a_row"), everywhere)
    placed = TrainState(params=shardings, optimizer_state=optimizer_shardings, **rest)
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        state,
        placed,
    )
