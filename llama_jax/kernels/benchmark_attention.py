"""Attention, forward and backward, by every implementation that the device takes, and by a peer.

Operations are counted as FlashAttention's authors do (arXiv 2407.08608, section 4.1): 4 N H for
each pair of a query and a key that it sees, forward, and 2.5 times that backward. The peer is cuDNN
on an NVIDIA GPU and splash on a TPU, both among the implementations, and torch on a CPU.
"""

import dataclasses
import os
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from llama_jax.accelerators import accelerator
from llama_jax.kernels.attention.case import AttentionCase
from llama_jax.kernels.attention.implementations import IMPLEMENTATIONS, implementation, refusal
from llama_jax.kernels.attention.mask import IntervalMask, MaskForm, causal_mask, packed_mask
from llama_jax.kernels.benchmark_timing import attempt, median_seconds

PEERS = {"gpu": "cudnn", "tpu": "splash", "cpu": "torch"}
NUM_DOCUMENTS = 8
# The reference holds its scores in float32, and in the backward pass several of them.
_SCORES_HELD = 4


@dataclasses.dataclass(frozen=True)
class AttentionSizes:
    """Attributes:
    lengths: of the rows, each a measurement; one row at a time.
    num_heads, num_kv_heads, head_dim: of the model.
    dtype: of query, key and value.
    """

    lengths: tuple[int, ...]
    num_heads: int
    num_kv_heads: int
    head_dim: int
    dtype: jnp.dtype


def visible_pairs(mask: IntervalMask) -> int:
    """How many pairs of a query and a key the mask leaves."""
    counts = np.asarray(mask.key_end, np.int64) - np.asarray(mask.key_start, np.int64)
    return int(np.maximum(counts, 0).sum())


def measure_attention(
    sizes: AttentionSizes, device: jax.Device, *, repetitions: int
) -> Iterator[dict[str, Any]]:
    """One row each for a length, a mask, an implementation and a pass.

    A row has `seconds`, `tflops` (10^12 operations a second) and, where they are known,
    `fraction_of_peak` and `ratio_to_peer`, larger being faster; or `refused`, the
    reason, or `failed`, the error.
    """
    for length in sizes.lengths:
        for name, mask in _masks(length).items():
            rows = list(_measure_case(sizes, length, name, mask, device, repetitions))
            peers = {
                row["pass"]: row["seconds"]
                for row in rows
                if row["name"] == PEERS[device.platform] and "seconds" in row
            }
            for row in rows:
                if "seconds" in row and row["pass"] in peers:
                    row["ratio_to_peer"] = peers[row["pass"]] / row["seconds"]
                yield row


def _masks(length: int) -> dict[str, IntervalMask]:
    documents = jnp.arange(length)[None] * NUM_DOCUMENTS // length
    return {
        "causal": causal_mask(1, length),
        f"{NUM_DOCUMENTS} documents": packed_mask(documents),
    }


def _measure_case(sizes, length, mask_name, mask, device, repetitions):
    case = AttentionCase(
        platform=device.platform,
        device_kind=device.device_kind,
        dtype=jnp.dtype(sizes.dtype),
        num_heads=sizes.num_heads,
        num_kv_heads=sizes.num_kv_heads,
        head_dim=sizes.head_dim,
        num_queries=length,
        num_keys=length,
        form=mask.form,
        return_lse=False,
    )
    head = {"suite": "attention", "length": length, "mask": mask_name}
    operations = 4 * sizes.num_heads * sizes.head_dim * visible_pairs(mask)
    arrays = _arrays(sizes, length)
    names = [*IMPLEMENTATIONS, *(["torch"] if device.platform == "cpu" else [])]
    for name in names:
        row = head | {"name": name}
        reason = _torch_refusal() if name == "torch" else refusal(name, case)
        reason = reason or _memory_refusal(name, case, device)
        if reason:
            yield row | {"refused": reason}
            continue
        measure = _torch_seconds if name == "torch" else _seconds
        for which, factor, seconds in measure(name, case, arrays, mask, repetitions):
            yield row | {"pass": which} | _rates(factor * operations, seconds, sizes.dtype, device)


def _rates(operations: float, seconds: float | str, dtype, device) -> dict[str, Any]:
    if isinstance(seconds, str):
        return {"failed": seconds}
    rate = operations / seconds
    peaks = accelerator(device.device_kind)
    known = peaks is not None and dtype == jnp.bfloat16
    fraction = {"fraction_of_peak": rate / peaks.bf16_flops} if known else {}
    return {"seconds": seconds, "tflops": rate / 1e12} | fraction


def _arrays(sizes: AttentionSizes, length: int) -> tuple[jax.Array, ...]:
    """Query, key, value, and the gradient of the result."""
    heads = (sizes.num_heads, sizes.num_kv_heads, sizes.num_kv_heads, sizes.num_heads)
    keys = jax.random.split(jax.random.key(0), len(heads))
    return tuple(
        jax.random.normal(key, (1, count, length, sizes.head_dim), sizes.dtype)
        for key, count in zip(keys, heads, strict=True)
    )


def _seconds(name, case, arrays, mask, repetitions):
    module = implementation(name)
    options = module.options(case) if hasattr(module, "options") else {}
    *inputs, gradient = arrays

    def attend(query, key, value, mask):
        return module.attention(query, key, value, mask, scale=case.head_dim**-0.5, **options)

    def differentiate(query, key, value, mask):
        return jax.vjp(lambda *x: attend(*x, mask), query, key, value)[1]

    def forward():
        return median_seconds(attend, (*inputs, mask), repetitions=repetitions)

    def backward():
        # What the forward pass keeps is an argument: only the backward pass is timed.
        pull_back = jax.jit(differentiate)(*inputs, mask)
        return median_seconds(lambda f, x: f(x), (pull_back, gradient), repetitions=repetitions)

    yield "forward", 1.0, attempt(forward)
    yield "backward", 2.5, attempt(backward)


def _memory_refusal(name: str, case: AttentionCase, device) -> str | None:
    if name != "reference":
        return None
    needed = _SCORES_HELD * 4 * case.num_heads * case.num_queries * case.num_keys
    limit = (device.memory_stats() or {}).get("bytes_limit")
    limit = limit or os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > limit:
        return f"its scores take {needed / 2**30:,.0f} GiB of {limit / 2**30:,.0f}"
    return None


def _torch_refusal() -> str | None:
    import importlib.util

    return None if importlib.util.find_spec("torch") else "torch is not installed"


def _torch_seconds(name, case, arrays, mask, repetitions):
    """torch's scaled dot-product attention: its causal path, or a mask of all pairs."""
    import statistics
    import time

    import torch

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    dtype = getattr(torch, case.dtype.name)
    query, key, value, gradient = (
        torch.from_numpy(np.array(x, np.float32)).to(dtype) for x in arrays
    )
    inputs = [x.requires_grad_() for x in (query, key, value)]
    options: dict[str, Any] = {"is_causal": True}
    if mask.form is not MaskForm.CAUSAL:
        position = np.arange(case.num_keys)
        start, end = (np.asarray(x)[0, :, None] for x in (mask.key_start, mask.key_end))
        options = {"attn_mask": torch.from_numpy((position >= start) & (position < end))}

    times: dict[str, list[float]] = {"forward": [], "backward": []}
    for repetition in range(-1, repetitions):
        began = time.perf_counter()
        output = torch.nn.functional.scaled_dot_product_attention(
            *inputs, scale=case.head_dim**-0.5, enable_gqa=True, **options
        )
        middle = time.perf_counter()
        torch.autograd.grad(output, inputs, gradient)
        if repetition >= 0:
            times["forward"].append(middle - began)
            times["backward"].append(time.perf_counter() - middle)
    for which, factor in (("forward", 1.0), ("backward", 2.5)):
        yield which, factor, statistics.median(times[which])
