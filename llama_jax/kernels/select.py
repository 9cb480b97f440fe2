"""Which operators run on which platform.

`auto` takes what has been run for years by others before what is ours: no kernel of
`mosaic_gpu` and `flash_tpu` has met the hardware that it is written for, so they are taken by name
(`llama-jax doctor` compares each with the reference on the devices it finds).
"""

import dataclasses
import functools

from llama_jax.kernels.attention.implementations import attention_by_name
from llama_jax.kernels.operators import DECODE, PREFILL, REFERENCE, Operators

AUTO = "auto"
_AUTO_ATTENTION = {"cpu": "chunked", "gpu": ("cudnn", "chunked"), "tpu": ("splash", "chunked")}


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
    names = _AUTO_ATTENTION[platform] if attention == AUTO else attention
    chosen = attention_by_name(names, platform=platform, device_kind=device_kind)
    return dataclasses.replace(REFERENCE, attention=chosen)


@functools.cache
def inference_operators(platform: str, device_kind: str) -> tuple[Operators, Operators]:
    """Operators of prefill and of decoding on one device."""
    chunked = attention_by_name("chunked", platform=platform, device_kind=device_kind)
    return dataclasses.replace(PREFILL, attention=chunked), DECODE

