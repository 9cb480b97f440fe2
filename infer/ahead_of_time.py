"""A decode step compiled for accelerators that are not here: does the model fit, with its cache?

Weights are only shapes. The step is one token a row for all rows of a full batch: what a server
does nearly all of the time, and with the cache allocated, what it needs most memory for.
"""

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from llama_jax.checkpoints.quantized_source import abstract_quantized_params
from llama_jax.config import ModelConfig
from llama_jax.model import REFERENCE, KVCache, Params, forward_cached, init_cache, logits
from llama_jax.quantization.recipes import Recipe
from sharding.placement import (
    cache_shardings,
    on_mesh,
    quantized_shardings,
    replicated,
    unstacked_shardings,
)
from sharding.rules import SERVING

# Choosing among matrix kernels means timing them, for which there is no device.
_GPU_OPTIONS = {"xla_gpu_autotune_level": 0}


def compile_decode_step(
    config: ModelConfig, recipe: Recipe, mesh: Mesh, *, batch_size: int, num_slots: int
) -> jax.stages.Compiled:
    """The greedy next token of every row, compiled for `mesh`; `memory_analysis()` is per device.

    Args:
      recipe: formats of the weights; what has none is bfloat16, and so is the cache.
      mesh: of `compile_targets.target_devices` or real ones; weights are split over `tensor`.
      batch_size: rows.
      num_slots: tokens a row that the cache has room for.
    """
    dtype = jnp.dtype(jnp.bfloat16)
    params = abstract_quantized_params(config, recipe, dtype)
    cache = jax.eval_shape(lambda: init_cache(config, batch_size, num_slots, dtype))
    params = _lying(params, quantized_shardings(params, unstacked_shardings(config, mesh)))
    cache = _lying(cache, cache_shardings(config, mesh))
    tokens = jax.ShapeDtypeStruct((batch_size, 1), jnp.int32, sharding=replicated(mesh))

    def step(params: Params, tokens: jax.Array, cache: KVCache) -> tuple[jax.Array, KVCache]:
        hidden, cache = forward_cached(params, tokens, cache, config=config, operators=REFERENCE)
        scores = logits(params, hidden, config=config)
        return jnp.argmax(scores, -1).astype(jnp.int32), cache

    platform = mesh.devices.flat[0].platform
    with on_mesh(mesh, SERVING):
        traced = jax.jit(step, donate_argnums=2).trace(params, tokens, cache)
        lowered = traced.lower(lowering_platforms=("cuda" if platform == "gpu" else platform,))
    return lowered.compile(_GPU_OPTIONS if platform == "gpu" else None)


def _lying(shapes, shardings):
    """`ShapeDtypeStruct`s with the shardings of a tree like theirs."""
    return jax.tree.map(
        lambda shape, sharding: jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding),
        shapes,
        shardings,
    )
