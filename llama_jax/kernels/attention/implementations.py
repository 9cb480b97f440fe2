"""Attention by name: every implementation there is, and how one is chosen.

What a name means is in `kernels/named_choice.py`. The choice is made from shapes, dtypes and the
form of the mask.
"""

import importlib
from collections.abc import Callable

import jax

from llama_jax.kernels.attention.case import AttentionCase, case_of
from llama_jax.kernels.attention.mask import IntervalMask
from llama_jax.kernels.attention.quantized_vectors import QuantizedVectors
from llama_jax.kernels.named_choice import choose_named, known_names

# Name -> module with `attention`, `refusal(case)` and, where sizes depend on the platform,
# `options(case)`. Imported when named: each brings a part of Pallas.
IMPLEMENTATIONS: dict[str, str] = {
    "reference": "llama_jax.kernels.attention.reference",
    "chunked": "llama_jax.kernels.attention.chunked",
    "mosaic_gpu": "llama_jax.kernels.attention.mosaic_gpu",
    "cudnn": "llama_jax.kernels.attention.cudnn",
    "splash": "llama_jax.kernels.attention.splash",
    "flash_tpu": "llama_jax.kernels.attention.flash_tpu",
}

_TAKE_QUANTIZED_KEYS = ("reference", "chunked")


def attention_by_name(
    names: str | tuple[str, ...], *, platform: str, device_kind: str
) -> Callable[..., jax.Array]:
    """Attention with the contract of `reference.attention`.

    Args:
      names: one implementation, or several in order of preference.
      platform: of the devices that will run it: `cpu`, `gpu`, `tpu`.
      device_kind: as JAX names it (`device.device_kind`).

    Raises:
      InputError: an unknown name, here; a case that none of the names takes, when it is traced.
    """
    names = known_names("attention", names, IMPLEMENTATIONS)

    def attention(
        query: jax.Array,
        key: jax.Array | QuantizedVectors,
        value: jax.Array | QuantizedVectors,
        mask: IntervalMask,
        *,
        scale: float,
        return_lse: bool = False,
    ):
        case = case_of(
            query, key, mask, platform=platform, device_kind=device_kind, return_lse=return_lse
        )
        module = implementation(choose(names, case))
        options = module.options(case) if hasattr(module, "options") else {}
        return module.attention(
            query, key, value, mask, scale=scale, return_lse=return_lse, **options
        )

    return attention


def implementation(name: str):
    """The module of `name`, with `attention` and `refusal`. Raises `InputError` if unknown."""
    known_names("attention", name, IMPLEMENTATIONS)
    return importlib.import_module(IMPLEMENTATIONS[name])


def choose(names: tuple[str, ...], case: AttentionCase) -> str:
    """The first of `names` that takes `case`. Raises `InputError` with reasons if none does."""
    described = (
        f"{case.platform}, {case.dtype.name}, {case.num_queries} queries, {case.num_keys} keys, "
        f"{case.num_heads}/{case.num_kv_heads} heads of {case.head_dim}, {case.form.value} mask"
    )
    return choose_named(
        "attention", names, IMPLEMENTATIONS, lambda name: refusal(name, case), described
    )


def refusal(name: str, case: AttentionCase) -> str | None:
    """Why `name` cannot compute `case`; None if it can."""
    if case.quantized_keys and name not in _TAKE_QUANTIZED_KEYS:
        return "it takes no quantised keys and values"
    return implementation(name).refusal(case)
