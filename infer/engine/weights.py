"""The model and, where one drafts for it, a smaller model: their weights and their pages.

Both have the same page table: page p of the draft's pool holds the same tokens.
"""

from typing import NamedTuple

import jax.numpy as jnp

from infer.engine.settings import EngineSettings
from llama_jax.config import ModelConfig
from llama_jax.kernels.paged_attention.pages import KVPages
from llama_jax.model import Params, init_page_pool


class Weights(NamedTuple):
    """Unstacked parameters of the model, and of the draft model or None."""

    model: Params
    draft: Params | None = None


class Pools(NamedTuple):
    """Pages of every layer of the model, and of the draft model or None."""

    model: tuple[KVPages, ...]
    draft: tuple[KVPages, ...] | None = None


def empty_pools(config: ModelConfig, settings: EngineSettings, dtype: jnp.dtype) -> Pools:
    """Pages of both; `dtype` where the settings name none."""
    dtype = settings.cache_dtype or dtype
    size = (settings.num_pages, settings.page_size, dtype)
    draft = settings.speculation and settings.speculation.draft_config
    return Pools(init_page_pool(config, *size), draft and init_page_pool(draft, *size))
