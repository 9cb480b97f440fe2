"""Attention by name: every implementation there is, and how one is chosen.

One name is strict: what it cannot do is an error that says which names would take it. Of several
names the first that takes the case runs. The choice is made while tracing, from shapes, dtypes and
the form of the mask, and is logged once.
"""

import functools
import importlib
import logging
from collections.abc import Callable

import jax

from llama_jax.errors import InputError
from llama_jax.kernels.attention.case import AttentionCase, case_of
from llama_jax.kernels.attention.mask import IntervalMask
from llama_jax.kernels.attention.quantized_vectors import QuantizedVectors

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

_log = logging.getLogger(__name__)


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
    names = (names,) if isinstance(names, str) else tuple(names)
    for name in names:
        _check_known(name)

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
    _check_known(name)
    return importlib.import_module(IMPLEMENTATIONS[name])


def choose(names: tuple[str, ...], case: AttentionCase) -> str:
    """The first of `names` that takes `case`. Raises `InputError` with their reasons if none does.

    The log has a line for each case that a name takes, with the reasons of those before it.
    """
    reasons = []
    for name in names:
        reason = refusal(name, case)
        if reason is None:
            _report(name, case, tuple(reasons))
            return name
        reasons.append(f"{name}: {reason}")
    takers = [name for name in IMPLEMENTATIONS if refusal(name, case) is None]
    raise InputError(f"attention {'; '.join(reasons)}. These take it: {', '.join(takers)}")


def refusal(name: str, case: AttentionCase) -> str | None:
    """Why `name` cannot compute `case`; None if it can."""
    if case.quantized_keys and name not in _TAKE_QUANTIZED_KEYS:
        return "it takes no quantised keys and values"
    return implementation(name).refusal(case)


@functools.cache
def _report(name: str, case: AttentionCase, refused: tuple[str, ...]) -> None:
    _log.info(
        "attention: %s (%s, %s, %d queries, %d keys, %d/%d heads of %d, %s mask)%s",
        name,
        case.platform,
        case.dtype.name,
        case.num_queries,
        case.num_keys,
        case.num_heads,
        case.num_kv_heads,
        case.head_dim,
        case.form.value,
        f"; refused: {'; '.join(refused)}" if refused else "",
    )


def _check_known(name: str) -> None:
    if name not in IMPLEMENTATIONS:
        raise InputError(f"attention {name!r} is not one of {', '.join(IMPLEMENTATIONS)}")
