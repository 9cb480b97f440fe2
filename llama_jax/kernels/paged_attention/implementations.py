"""Paged attention by name: every implementation there is, and how one is chosen.

As for attention (`kernels/attention/implementations.py`): one name is strict, of several the first
that takes the case runs, and the log says once which.
"""

import functools
import importlib
import logging
from collections.abc import Callable

import jax

from llama_jax.errors import InputError
from llama_jax.kernels.paged_attention.case import PagedAttentionCase, case_of
from llama_jax.kernels.paged_attention.pages import KVPages

# Name -> module with `paged_attention` and `refusal(case)`, imported when named.
IMPLEMENTATIONS: dict[str, str] = {
    "reference": "llama_jax.kernels.paged_attention.reference",
    "mosaic_gpu": "llama_jax.kernels.paged_attention.mosaic_gpu",
    "ragged_tpu": "llama_jax.kernels.paged_attention.ragged_tpu",
}

_log = logging.getLogger(__name__)


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
    names = (names,) if isinstance(names, str) else tuple(names)
    for name in names:
        _check_known(name)

    def paged_attention(
        query: jax.Array,
        pages: KVPages,
        page_table: jax.Array,
        lengths: jax.Array,
        *,
        scale: float,
    ) -> jax.Array:
        case = case_of(query, pages, platform=platform, device_kind=device_kind)
        chosen = implementation(choose(names, case))
        return chosen.paged_attention(query, pages, page_table, lengths, scale=scale)

    return paged_attention


def implementation(name: str):
    """The module of `name`, with `paged_attention` and `refusal`. `InputError` if unknown."""
    _check_known(name)
    return importlib.import_module(IMPLEMENTATIONS[name])


def choose(names: tuple[str, ...], case: PagedAttentionCase) -> str:
    """The first of `names` that takes `case`. Raises `InputError` with their reasons if none does.

    The log has a line for each case that a name takes, with the reasons of those before it.
    """
    reasons = []
    for name in names:
        reason = implementation(name).refusal(case)
        if reason is None:
            _report(name, case, tuple(reasons))
            return name
        reasons.append(f"{name}: {reason}")
    takers = [name for name in IMPLEMENTATIONS if implementation(name).refusal(case) is None]
    raise InputError(f"paged attention {'; '.join(reasons)}. These take it: {', '.join(takers)}")


@functools.cache
def _report(name: str, case: PagedAttentionCase, refused: tuple[str, ...]) -> None:
    _log.info(
        "paged attention: %s (%s, %s, %d query tokens a row, %s pages of %d, %d/%d heads of %d)%s",
        name,
        case.platform,
        case.dtype.name,
        case.num_queries,
        case.page_dtype.name,
        case.page_size,
        case.num_heads,
        case.num_kv_heads,
        case.head_dim,
        f"; refused: {'; '.join(refused)}" if refused else "",
    )


def _check_known(name: str) -> None:
    if name not in IMPLEMENTATIONS:
        raise InputError(f"paged attention {name!r} is not one of {', '.join(IMPLEMENTATIONS)}")
