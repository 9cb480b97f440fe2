"""What decoding waits for: reading weights and cache, as a share of the bandwidth of a copy.

The copy is of the same run: bytes read and bytes written, added up. Weights of the formats are as
`llama-jax quantize` stores them, 4 bits being half a byte, scales included; several copies are read
in turn, so that no cache holds them. Activations and results are counted too.
"""

import functools
import importlib
import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from llama_jax.kernels.benchmark_timing import attempt, median_seconds
from llama_jax.kernels.matmul import quantized
from llama_jax.kernels.paged_attention.case import case_of
from llama_jax.kernels.paged_attention.implementations import IMPLEMENTATIONS, implementation
from llama_jax.kernels.paged_attention.pages import QUANTIZED_DTYPES, KVPages
from llama_jax.quantization.number_formats import E4M3, INT8
from llama_jax.quantization.quantized_tensor import INT4_GROUP, QuantizedTensor, WeightFormat

# Kernel of weights that stay quantised -> its module.
_WEIGHT_ONLY = {
    "weight_only_gpu": "llama_jax.kernels.matmul.weight_only_gpu",
    "weight_only_tpu": "llama_jax.kernels.matmul.weight_only_tpu",
}
_PAGE_SIZE = 64
# What is read in a turn: several times the 50 MB of an H100's cache. A CPU's is of no interest.
_BYTES_READ = {"cpu": 1 << 24}
_MOST_BYTES_READ = 1 << 28
_VALUE_DTYPES = {WeightFormat.FP8: E4M3, WeightFormat.INT8: INT8, WeightFormat.INT4: jnp.int4}


def copy_bandwidth(device: jax.Device, *, repetitions: int) -> float:
    """Bytes a second of a large copy, those read and those written."""
    size = _BYTES_READ.get(device.platform, 1 << 30)
    array = jnp.arange(size // 4, dtype=jnp.int32)
    return 2 * size / median_seconds(lambda x: x + 1, (array,), repetitions=repetitions)


def measure_matrix_vector(
    shapes: dict[str, tuple[int, int]],
    tokens: tuple[int, ...],
    device: jax.Device,
    bandwidth: float,
    *,
    repetitions: int,
) -> Iterator[dict[str, Any]]:
    """One row each for a layer, a number of tokens, a format and an implementation.

    Args:
      shapes: layer -> outputs and inputs.
      bandwidth: of `copy_bandwidth`.
    """
    for layer, (outputs, inputs) in shapes.items():
        for count in tokens:
            x = jax.random.normal(jax.random.key(0), (count, inputs), jnp.bfloat16)
            around = 2 * count * (inputs + outputs)
            head = {"suite": "decode", "layer": layer, "shape": [outputs, inputs], "tokens": count}
            for name in ("bfloat16", *WeightFormat):
                weight = _weight(name, outputs, inputs)
                num_bytes = _weight_bytes(weight)
                copies = _copies(weight, num_bytes, device)
                row = head | {"format": str(name), "bytes": num_bytes + around}
                for how, function, reason in _products(x, weight, device):
                    if reason:
                        yield row | {"name": how, "refused": reason}
                        continue
                    sets = [(x, copy) for copy in copies]
                    seconds = attempt(
                        functools.partial(median_seconds, function, *sets, repetitions=repetitions)
                    )
                    yield row | {"name": how} | _rates(row["bytes"], seconds, bandwidth)


def measure_paged_attention(
    lengths: tuple[int, ...],
    rows: int,
    heads: tuple[int, int, int],
    device: jax.Device,
    bandwidth: float,
    *,
    repetitions: int,
) -> Iterator[dict[str, Any]]:
    """One row each for a length of all `rows` rows, a dtype of the pages and an implementation.

    Args:
      heads: query heads, key heads, and the numbers of a head.
    """
    num_heads, num_kv_heads, head_dim = heads
    scale = head_dim**-0.5
    query = jax.random.normal(jax.random.key(0), (rows, num_heads, 1, head_dim), jnp.bfloat16)
    for length in lengths:
        for dtype in (jnp.dtype(jnp.bfloat16), *QUANTIZED_DTYPES):
            pages, table = _pages(rows, length, num_kv_heads, head_dim, dtype)
            vector = head_dim * dtype.itemsize + 4 * (dtype in QUANTIZED_DTYPES)
            num_bytes = rows * length * 2 * num_kv_heads * vector + 2 * 2 * query.size
            case = case_of(query, pages, platform=device.platform, device_kind=device.device_kind)
            arguments = (query, pages, table, jnp.full(rows, length, jnp.int32))
            head = {"suite": "decode", "layer": "paged attention", "rows": rows, "length": length}
            row = head | {"format": dtype.name, "bytes": num_bytes}
            for name in IMPLEMENTATIONS:
                module = implementation(name)
                if reason := module.refusal(case):
                    yield row | {"name": name, "refused": reason}
                    continue
                attend = functools.partial(module.paged_attention, scale=scale)
                seconds = attempt(
                    functools.partial(median_seconds, attend, arguments, repetitions=repetitions)
                )
                yield row | {"name": name} | _rates(num_bytes, seconds, bandwidth)


def _rates(num_bytes: int, seconds: float | str, bandwidth: float) -> dict[str, float | str]:
    if isinstance(seconds, str):
        return {"failed": seconds}
    rate = num_bytes / seconds
    return {
        "seconds": seconds,
        "bytes_per_second": rate,
        "fraction_of_copy_bandwidth": rate / bandwidth,
    }


def _weight(name: str, outputs: int, inputs: int) -> jax.Array | QuantizedTensor:
    key = jax.random.key(1)
    if name == "bfloat16":
        return jax.random.normal(key, (outputs, inputs), jnp.bfloat16)
    weight_format = WeightFormat(name)
    dtype = _VALUE_DTYPES[weight_format]
    values = jax.random.randint(key, (outputs, inputs), -7, 8, jnp.int8).astype(dtype)
    in_groups = weight_format is WeightFormat.INT4
    shape = (outputs, -(-inputs // INT4_GROUP)) if in_groups else (outputs,)
    scales = jax.random.uniform(key, shape, jnp.float32, 0.5, 1.5)
    return QuantizedTensor(values, scales, weight_format)


def _weight_bytes(weight: jax.Array | QuantizedTensor) -> int:
    if not isinstance(weight, QuantizedTensor):
        return weight.nbytes
    halves = 1 if weight.format is WeightFormat.INT4 else 2
    return math.prod(weight.shape) * halves // 2 + weight.scales.nbytes


def _copies(weight, num_bytes: int, device: jax.Device) -> list:
    wanted = _BYTES_READ.get(device.platform, _MOST_BYTES_READ)
    copies = [jax.tree.map(jnp.copy, weight) for _ in range(-(-wanted // num_bytes) - 1)]
    return [weight, *copies]


def _products(x, weight, device) -> Iterator[tuple[str, Any, str | None]]:
    """Name, function of x and the weight, and the reason why the device does not take it."""
    if not isinstance(weight, QuantizedTensor):
        yield "xla", _plain_product, None
        return
    yield "xla", quantized.matmul, None
    for name, module in _WEIGHT_ONLY.items():
        kernel = importlib.import_module(module)
        reason = kernel.refusal(x, weight, platform=device.platform, device_kind=device.device_kind)
        yield name, kernel.weight_only, reason


def _plain_product(x: jax.Array, weight: jax.Array) -> jax.Array:
    return jax.lax.dot_general(
        x, weight, (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32
    ).astype(x.dtype)


def _pages(rows, length, num_kv_heads, head_dim, dtype) -> tuple[KVPages, jax.Array]:
    """Pages in an order that is not that of memory."""
    per_row = -(-length // _PAGE_SIZE)
    shape = (rows * per_row, _PAGE_SIZE, 2 * num_kv_heads, head_dim)
    numbers = jax.random.randint(jax.random.key(2), shape, -100, 101, jnp.int8)
    if dtype in QUANTIZED_DTYPES:
        pages = numbers.astype(dtype)
        scales = jnp.full((rows * per_row, 2 * num_kv_heads, _PAGE_SIZE), 0.01, jnp.float32)
    else:
        pages, scales = numbers.astype(dtype) / 100, None
    order = jax.random.permutation(jax.random.key(3), rows * per_row).astype(jnp.int32)
    return KVPages(pages, scales), order.reshape(rows, per_row)
