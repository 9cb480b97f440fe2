"""Every kernel compiled for a device that is not here, and what its compiler says.

For a GPU: registers, spills, shared memory, and how often the instructions that matter stand in the
PTX (in the text: a loop counts once). For a TPU: whether it compiles, and the program's temporary
memory; cycles of attention are in `tests/benchmarks/results/tpu_attention.json`.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from llama_jax.compile_targets import GPU_TARGETS
from llama_jax.errors import InputError
from llama_jax.kernels.attention.implementations import implementation
from llama_jax.kernels.attention.mask import IntervalMask, MaskForm
from llama_jax.kernels.compiler_report import KernelReport, compile_for_gpu, compile_for_tpu
from llama_jax.kernels.paged_attention.implementations import implementation as paged
from llama_jax.kernels.paged_attention.pages import init_pages
from llama_jax.quantization.number_formats import E4M3
from llama_jax.quantization.quantized_tensor import INT4_GROUP, QuantizedTensor, WeightFormat

INSTRUCTIONS = (
    "wgmma.mma_async",
    "cp.async.bulk.tensor",
    "ld.shared",
    "st.shared",
    "ldmatrix",
    "stmatrix",
    "ex2",
)
# Of a row of Llama 3.1 8B.
_HEADS, _KV_HEADS, _HEAD_DIM, _LENGTH = 32, 8, 128, 8192
_OUTPUTS, _INPUTS = 14336, 4096
# Name -> a function and its arguments' shapes, made when asked for: each imports its kernel.
Cases = dict[str, Callable[[], tuple[Callable, tuple]]]


def compile_kernels(target: str) -> Iterator[dict[str, Any]]:
    """A row for each kernel of `target`'s platform: `name`, the numbers above, or `failed`.

    Raises:
      InputError: no compiler knows the target.
    """
    on_gpu = target.partition(":")[0] in GPU_TARGETS
    compile_one = _on_gpu if on_gpu else _on_tpu
    for name, case in (gpu_cases() if on_gpu else tpu_cases()).items():
        try:
            function, arguments = case()
            yield from compile_one(name, function, arguments, target)
        except InputError:
            raise
        except Exception as error:  # a compiler's many kinds; the others shall compile
            line = (str(error).strip().splitlines() or [""])[0]
            yield {"name": name, "failed": f"{type(error).__name__}: {line}"}


def _on_gpu(name, function, arguments, target) -> Iterator[dict[str, Any]]:
    kernels = compile_for_gpu(function, *arguments, target=target).kernels
    if not kernels:
        yield {"name": name, "failed": "the program holds no kernel of ours"}
    for kernel in kernels:
        full = name if len(kernels) == 1 else f"{name}: {kernel.name}"
        yield {"name": full, "kernel": kernel.name} | _numbers(kernel)


def _numbers(kernel: KernelReport) -> dict[str, Any]:
    return {
        "registers": kernel.registers,
        "spill_bytes": kernel.spill_bytes,
        "shared_memory_bytes": kernel.shared_memory_bytes,
        "warnings": list(kernel.warnings),
        "instructions": {name: kernel.count(name) for name in INSTRUCTIONS},
    }


def _on_tpu(name, function, arguments, target) -> Iterator[dict[str, Any]]:
    report = compile_for_tpu(function, *arguments, target=target)
    count = report.hlo.count('custom_call_target="tpu_custom_call"')
    if not count:
        yield {"name": name, "failed": "the program holds no kernel"}
        return
    memory = report.compiled.memory_analysis().temp_size_in_bytes
    yield {"name": name, "compiled": True, "kernels": count, "temporary_bytes": memory}


def gpu_cases() -> Cases:
    """What is compiled for Hopper."""
    return {
        **_attention_cases("mosaic_gpu"),
        **{
            f"fp8 gemm {tile} {dtype}": functools.partial(_gemm, tile, dtype)
            for tile in ("promoted", "fast")
            for dtype in ("bfloat16", "float32")
        },
        "quantise rows": _quantize_rows,
        **_weight_only_cases("weight_only_gpu"),
        **{
            f"paged attention {dtype}": functools.partial(_paged, "mosaic_gpu", dtype)
            for dtype in ("bfloat16", "int8", "float8_e4m3fn")
        },
    }


def tpu_cases() -> Cases:
    """What is compiled for TPUs."""
    return {
        **_attention_cases("flash_tpu"),
        **_attention_cases("splash"),
        **_weight_only_cases("weight_only_tpu"),
        "paged attention bfloat16": functools.partial(_paged, "ragged_tpu", "bfloat16"),
    }


def _attention_cases(name: str) -> Cases:
    return {
        f"{name} {which}": functools.partial(_attention, name, which == "forward and backward")
        for which in ("forward", "forward and backward")
    }


def _attention(name: str, backward: bool):
    module = implementation(name)

    def attend(start, end, *arrays):
        # Packed: what all of them take.
        mask = IntervalMask(start, end, MaskForm.PACKED)
        return module.attention(*arrays, mask, scale=_HEAD_DIM**-0.5)

    def differentiate(start, end, gradient, *arrays):
        return jax.vjp(functools.partial(attend, start, end), *arrays)[1](gradient)

    bounds = _shape(1, _LENGTH, dtype=jnp.int32)
    query = _shape(1, _HEADS, _LENGTH, _HEAD_DIM)
    key = _shape(1, _KV_HEADS, _LENGTH, _HEAD_DIM)
    if backward:
        return differentiate, (bounds, bounds, query, query, key, key)
    return attend, (bounds, bounds, query, key, key)


def _gemm(tile: str, dtype: str):
    from llama_jax.kernels.matmul.fp8_gemm_gpu import FAST, PROMOTED, fp8_gemm

    tile = {"promoted": PROMOTED, "fast": FAST}[tile]
    scales = _shape(_LENGTH, dtype=jnp.float32), _shape(_OUTPUTS, dtype=jnp.float32)
    left, right = _shape(_LENGTH, _INPUTS, dtype=E4M3), _shape(_OUTPUTS, _INPUTS, dtype=E4M3)
    function = functools.partial(fp8_gemm, tile=tile, out_dtype=jnp.dtype(dtype))
    return function, (left, scales[0], right, scales[1])


def _quantize_rows():
    from llama_jax.kernels.matmul.quantize_rows_gpu import quantize_rows_gpu

    return quantize_rows_gpu, (_shape(_LENGTH, _INPUTS),)


def _weight_only_cases(module: str) -> Cases:
    return {
        f"{module} {weight_format}, {tokens} tokens": functools.partial(
            _weight_only, module, weight_format, tokens
        )
        for weight_format in WeightFormat
        for tokens in (1, 64)
    }


def _weight_only(module: str, weight_format: WeightFormat, tokens: int):
    if module == "weight_only_gpu":
        from llama_jax.kernels.matmul.weight_only_gpu import weight_only
    else:
        from llama_jax.kernels.matmul.weight_only_tpu import weight_only
    values = {WeightFormat.FP8: E4M3, WeightFormat.INT8: jnp.int8, WeightFormat.INT4: jnp.int4}
    groups = (_INPUTS // INT4_GROUP,) if weight_format is WeightFormat.INT4 else ()
    weight = QuantizedTensor(
        _shape(_OUTPUTS, _INPUTS, dtype=values[weight_format]),
        _shape(_OUTPUTS, *groups, dtype=jnp.float32),
        weight_format,
    )
    return weight_only, (_shape(tokens, _INPUTS), weight)


def _paged(name: str, dtype: str):
    rows, page_size, per_row = 8, 64, _LENGTH // 64
    pages = functools.partial(init_pages, rows * per_row, page_size, _KV_HEADS, _HEAD_DIM)
    arguments = (
        _shape(rows, _HEADS, 1, _HEAD_DIM),
        jax.eval_shape(lambda: pages(jnp.dtype(dtype))),
        _shape(rows, per_row, dtype=jnp.int32),
        _shape(rows, dtype=jnp.int32),
    )
    return functools.partial(paged(name).paged_attention, scale=_HEAD_DIM**-0.5), arguments


def _shape(*dims: int, dtype: Any = jnp.bfloat16) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(dims, dtype)
