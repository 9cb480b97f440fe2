"""Paged attention by name: every implementation there is, and how one is chosen.

What a name means is in `kernels/named_choice.py`.
"""

import importlib
from collections.abc import Callable

import jax

from llama_jax.kernels.named_choice import choose_named, known_names
from llama_jax.kernels.paged_attention.case import PagedAttentionCase, case_of
from llama_jax.kernels.paged_attention.pages import KVPages

# Name -> module with `paged_attention` and `refusal(case)`, imported when named.
IMPLEMENTATIONS: dict[str, str] = {
    "reference": "llama_jax.kernels.paged_attention.reference",
    "chunked": "llama_jax.kernels.paged_attention.chunked",
    "mosaic_gpu": "llama_jax.kernels.paged_attention.mosaic_gpu",
    "ragged_tpu": "llama_jax.kernels.paged_attention.ragged_tpu",
}


def paged_attention_by_name(
    names: str | tuple[str, ...], *, platform: str, device_kind: str
) -> Callable[..., jax.Array]:
    """Paged attention with the contract of `reference.paged_attention`.

    Args:
      names: one implementation, or several in order of preference.
      platform: of the devices that will run it: `cpu`, `gpu`, `tpu`.
      device_kind: as JAX names it (`device.device_kind`).

    Raises:
      InputError: an unknown name, here; a case that none of the names takes, when it is traced.
    """
    names = known_names("paged attention", names, IMPLEMENTATIONS)

    def paged_attention(
        query: jax.Array,
        pages: KVPages,
        page_table: jax.Array,
        lengths: jax.Array,
        *,
        scale: float,
    ) -> jax.Array:
        case = case_of(query, pages, platform=platform, device_kind=device_kind)
        module = implementation(choose(names, case))
        options = module.options(case) if hasattr(module, "options") else {}
        return module.paged_attention(query, pages, page_table, lengths, scale=scale, **options)

    return paged_attention


def implementation(name: str):
    """The module of `name`, with `paged_attention` and `refusal`. `InputError` if unknown."""
    known_names("paged attention", name, IMPLEMENTATIONS)
    return importlib.import_module(IMPLEMENTATIONS[name])


def choose(names: tuple[str, ...], case: PagedAttentionCase) -> str:
    """The first of `names` that takes `case`. Raises `InputError` with reasons if none does."""
    described = (
        f"{case.platform}, {case.dtype.name}, {case.num_queries} query tokens a row, "
        f"{case.page_dtype.name} pages of {case.page_size}, {case.num_heads}/{case.num_kv_heads} "
        f"heads of {case.head_dim}"
    )
    return choose_named(
        "paged attention",
        names,
        IMPLEMENTATIONS,
        lambda name: implementation(name).refusal(case),
        described,
    )
