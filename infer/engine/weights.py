"""The model and, where one drafts for it, a smaller model: their weights and their pages.

Both have the same page table: page p of the draft's pool holds the same tokens.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from infer.engine.settings import EngineSettings
from llama_jax.config import ModelConfig
from llama_jax.kernels.paged_attention.pages import KVPages
from llama_jax.model import Params, init_page_pool
from sharding.placement import page_shardings


class Weights(NamedTuple):
    """Unstacked parameters of the model, and of the draft model or None."""

    model: Params
    draft: Params | None = None


class Pools(NamedTuple):
    """Pages of every layer of the model, and of the draft model or None."""

    model: tuple[KVPages, ...]
    draft: tuple[KVPages, ...] | None = None


def empty_pools(
    config: ModelConfig, settings: EngineSettings, dtype: jnp.dtype, mesh: Mesh | None
) -> Pools:
    """Pages of both; `dtype` where the settings name none. On a mesh each device makes its part."""
    dtype = settings.cache_dtype or dtype
    draft = settings.speculation and settings.speculation.draft_config

    def pages(config: ModelConfig) -> tuple[KVPages, ...]:
        make = functools.partial(
            init_page_pool, config, settings.num_pages, settings.page_size, dtype
        )
        if mesh is None:
            return make()
        return jax.jit(make, out_shardings=page_shardings(config, mesh, dtype))()

    return Pools(pages(config), draft and pages(draft))
