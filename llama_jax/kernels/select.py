"""Which operators run on which platform.

`auto` takes what has been run for years by others before what is ours: no kernel of
`mosaic_gpu` and `flash_tpu` has met the hardware that it is written for, so they are taken by name
(`llama-jax doctor` compares each with the reference on the devices it finds).
"""

import dataclasses
import functools

from llama_jax.errors import InputError
from llama_jax.kernels.attention.implementations import IMPLEMENTATIONS, attention_by_name
from llama_jax.kernels.matmul.implementations import XLA, weight_only_matmul
from llama_jax.kernels.operators import DECODE, PREFILL, REFERENCE, Operators
from llama_jax.kernels.paged_attention.implementations import paged_attention_by_name

AUTO = "auto"
_AUTO_ATTENTION = {"cpu": "chunked", "gpu": ("cudnn", "chunked"), "tpu": ("splash", "chunked")}
_AUTO_PAGED_ATTENTION = {"cpu": "chunked", "gpu": "chunked", "tpu": ("ragged_tpu", "chunked")}


@functools.cache
def training_operators(
    platform: str, device_kind: str, *, attention: str | tuple[str, ...] = AUTO
) -> Operators:
    """Operators with gradients for devices of `platform`: `cpu`, `gpu` or `tpu`.

    Args:
      device_kind: as JAX names it (`device.device_kind`).
      attention: `auto`, or names of `attention/implementations.py`.

    Raises:
      InputError: an unknown name.
    """
    is_auto = attention in (AUTO, (AUTO,))
    names = _AUTO_ATTENTION[platform] if is_auto else attention
    chosen = attention_by_name(names, platform=platform, device_kind=device_kind)
    return dataclasses.replace(REFERENCE, attention=chosen)


def check_attention_names(names: tuple[str, ...]) -> None:
    """Raises `InputError` if these are neither `auto` alone nor known names."""
    if not names:
        raise InputError(f"attention: give {AUTO}, or names in order of preference")
    if names == (AUTO,):
        return
    for name in names:
        if name not in IMPLEMENTATIONS:
            known = ", ".join(IMPLEMENTATIONS)
            raise InputError(f"attention: must be {AUTO} alone, or of {known}, not {name!r}")


@functools.cache
def inference_operators(
    platform: str,
    device_kind: str,
    *,
    matmul: str | tuple[str, ...] = XLA,
    paged_attention: str | tuple[str, ...] = AUTO,
) -> tuple[Operators, Operators]:
    """Operators of prefill and of decoding on one device.

    Args:
      matmul: names of `matmul/implementations.py`, for quantised weights while decoding.
      paged_attention: `auto`, or names of `paged_attention/implementations.py`, for a cache in
        pages while decoding. Prompts take what `auto` is: kernels of decoding refuse many queries.

    Raises:
      InputError: an unknown name.
    """
    device = {"platform": platform, "device_kind": device_kind}
    chunked = attention_by_name("chunked", **device)
    product = weight_only_matmul(matmul, **device)
    auto = _AUTO_PAGED_ATTENTION[platform]
    is_auto = paged_attention in (AUTO, (AUTO,))
    of_prompts = paged_attention_by_name(auto, **device)
    of_decoding = paged_attention_by_name(auto if is_auto else paged_attention, **device)
    return (
        dataclasses.replace(PREFILL, attention=chunked, paged_attention=of_prompts),
        dataclasses.replace(DECODE, matmul=product, paged_attention=of_decoding),
    )
