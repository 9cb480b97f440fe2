"""The settings of an engine for a model on the devices that are here.

What a size costs: a decode program for each bucket of rows and each sampling mode, a prefill
program for each length of chunk; memory for the pages. On a CPU a step takes time in proportion to
its rows, so a small bucket is kept for the ends of jobs; on accelerators a step with few rows takes
as long as one with many, and one bucket makes every product of one shape.
"""

import os
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from infer.engine.settings import (
    ADJUSTED,
    EVERYTHING,
    GREEDY_ONLY,
    SAMPLED,
    EngineSettings,
    Speculation,
)
from infer.sampling import SamplingMode
from llama_jax.config import ModelConfig
from llama_jax.costs import kv_bytes_per_token, stored_bytes
from llama_jax.errors import InputError
from llama_jax.kernels.paged_attention.pages import quick_page_dtype
from llama_jax.model import Params

# Platform -> rows, tokens a page, tokens of prompts a call, lengths of chunks. A page of 64 is a
# tile of the Hopper kernel, and one of 128 a copy that keeps a TPU's memory busy.
PLATFORM_SIZES = {
    "cpu": (64, 16, 512, (32, 128, 512)),
    "gpu": (256, 64, 2048, (64, 256, 2048)),
    "tpu": (256, 128, 2048, (128, 512, 2048)),
}
# Of a device's memory, what pages may take: of an accelerator's, what weights leave and less a
# tenth for what a step needs besides; of a CPU's, a part of what is free now.
_RESERVED_OF_DEVICE = 0.1
_SHARE_OF_FREE_HOST = 0.25
STANDARD_MODES = (GREEDY_ONLY, SAMPLED, ADJUSTED, EVERYTHING)


def engine_settings(
    config: ModelConfig,
    params: Params,
    *,
    rows: int | None = None,
    max_length: int | None = None,
    cache_dtype: Any = None,
    cache_bytes: int | None = None,
    num_devices: int = 1,
    modes: Sequence[SamplingMode] = STANDARD_MODES,
    speculation: Speculation | None = None,
    draft_params: Params | None = None,
    beside: Any = None,
    **others: Any,
) -> EngineSettings:
    """Settings that fit.

    Args:
      params: arrays, where they will be used.
      rows: answered at once; by default 64 on CPUs and 256 on accelerators.
      max_length: longest row in tokens, rounded up to whole pages; by default the model's context
        in whole pages, which is also the most.
      cache_dtype: of keys and values; by default the weights' own, and float32 for 16-bit weights
        on a CPU (`quick_page_dtype`).
      cache_bytes: memory of all devices for pages; by default what is free (asked by all processes
        that have joined, together), and never more than `rows` rows of `max_length` could use.
      num_devices: that weights and pages are split over.
      speculation, draft_params: how tokens are guessed, and the weights of the model that guesses.
      beside: arrays that lie on the same devices, such as those of another engine.
      others: further fields of `EngineSettings`.

    Raises:
      InputError: `max_length` is over the model's context, or there is no memory for one row of it,
        with the numbers.
    """
    device = jax.local_devices()[0]
    platform = device.platform
    default_rows, page_size, prefill_tokens, prefill_lengths = PLATFORM_SIZES[platform]
    rows = rows or default_rows
    if rows < 1:
        raise InputError(f"rows must be at least 1, not {rows}")
    page_size = min(page_size, config.context_length)
    most_length = config.context_length // page_size * page_size
    if max_length is not None and max_length > most_length:
        raise InputError(
            f"a longest row of {max_length} tokens is over the model's context of {most_length}: "
            f"ask for at most {most_length}"
        )
    max_length = -(-(max_length or most_length) // page_size) * page_size
    cache_dtype = np.dtype(cache_dtype or quick_page_dtype(params["embedding"].dtype, platform))
    token_bytes = kv_bytes_per_token(config, cache_dtype)
    if draft_params is not None:
        token_bytes += kv_bytes_per_token(speculation.draft_config, cache_dtype)
    page_bytes = page_size * token_bytes
    if cache_bytes is None:
        cache_bytes = _least(_free_bytes(device, (params, draft_params, beside), num_devices))
    num_pages = min(cache_bytes // page_bytes, rows * (max_length // page_size))
    if num_pages * page_size < max_length:
        raise InputError(
            f"a row of {max_length} tokens takes {max_length // page_size * page_bytes / 1e9:.2f} "
            f"GB of cache, and there are {cache_bytes / 1e9:.2f} GB: lower the longest row, use an "
            "8-bit cache, or more devices"
        )
    needed = [length for length in prefill_lengths if length < max_length]
    longest = next((length for length in prefill_lengths if length >= max_length), None)
    return EngineSettings(
        row_buckets=_row_buckets(rows, platform),
        max_length=max_length,
        page_size=page_size,
        num_pages=num_pages,
        prefill_tokens=prefill_tokens,
        prefill_lengths=(*needed, longest) if longest else tuple(needed),
        cache_dtype=cache_dtype,
        modes=tuple(modes),
        speculation=speculation,
        **others,
    )


def _row_buckets(rows: int, platform: str) -> tuple[int, ...]:
    if platform != "cpu":
        return (rows,)
    # Of one row XLA's CPU backend makes another product, with other bits, and slower in bfloat16.
    rows = max(2, rows)
    return tuple(sorted({max(2, rows // 8), rows}))


def _least(num_bytes: int) -> int:
    """The least of all processes, in whole MiB: the number of pages is part of every program, and
    all processes of a mesh must have the same programs."""
    if jax.process_count() == 1:
        return num_bytes
    from jax.experimental import multihost_utils

    return int(multihost_utils.process_allgather(np.int32(num_bytes >> 20)).min()) << 20


def _free_bytes(device: jax.Device, weights: Any, num_devices: int) -> int:
    """Memory that pages may take, on all devices together."""
    if device.platform == "cpu":
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return int(free * _SHARE_OF_FREE_HOST)
    stats = device.memory_stats() or {}
    if "bytes_limit" not in stats:
        raise InputError(f"{device.device_kind} does not tell its memory: say how much for pages")
    most = stats["bytes_limit"] * (1 - _RESERVED_OF_DEVICE) * num_devices
    return max(0, int(most - stored_bytes(weights)))
