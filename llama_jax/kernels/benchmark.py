"""`llama-jax bench kernels`: attention, products of training and of decoding, beside their peers.

Each suite measures every implementation that the device takes, on random numbers (zeros are faster:
a chip that switches fewer bits runs at a higher clock), and says of the others why not. Kernels of
a platform that is not here are never interpreted: with `--target` they are compiled for it, and
what the compiler says of them is shown instead of a time.
"""

import json
import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from llama_jax.errors import InputError

_PACKAGES = ("jax", "jaxlib", "numpy")
_PLUGINS = {"gpu": ("jax-cuda13-plugin",), "tpu": ("libtpu",)}
# What fits a machine without an accelerator.
_CPU = {"lengths": (512, 2048), "tokens": 256, "models": ("1b",)}
_ACCELERATOR = {"lengths": (4096, 8192, 32768, 131072), "tokens": 8192, "models": ("8b", "70b")}


def bench_kernels(
    *,
    suite: Literal["attention", "gemm", "decode", "all"] = "all",
    lengths: tuple[int, ...] = (),
    heads: tuple[int, int] = (32, 8),
    head_dim: int = 128,
    dtype: Literal["auto", "bfloat16", "float32"] = "auto",
    models: tuple[Literal["tiny", "1b", "8b", "70b", "405b"], ...] = (),
    tokens: int | None = None,
    decode_tokens: tuple[int, ...] = (1, 16, 64),
    rows: int = 8,
    repetitions: int = 5,
    target: str | None = None,
    output: Path | None = None,
    quiet: bool = False,
) -> int:
    """Measures each kernel on this machine's device, or compiles it for one that is not here.

    Exits with 1 if a kernel failed. A layer's or a whole step's gain is what bench train --baseline
    measures: llama-jax bench train 8b --row-length 8192 --rows 1 --matmul fp8_tensorwise --baseline

    Example: llama-jax bench kernels --suite attention --lengths 256 512
      llama-jax bench kernels --output kernels.json
      llama-jax bench kernels --target h100 --output compiled.json

    Args:
      suite: attention forward and backward; gemm, 8-bit products of training; decode, products with
        quantised weights and paged attention; or all.
      lengths: of rows, for attention and of rows in the cache, for decode; 4096 to 131072, or 512
        and 2048 on a CPU.
      heads: query heads and key heads.
      head_dim: numbers of a head.
      dtype: of attention; bfloat16, but float32 on a CPU.
      models: whose linear layers gemm and decode take; 8b and 70b, or 1b on a CPU.
      tokens: of a product of training; 8192, or 256 on a CPU.
      decode_tokens: of a product of decoding.
      rows: of paged attention.
      repetitions: of each measurement; the median counts.
      target: h100, h200, or a TPU topology such as v5p:2x2x1: compile for it and measure nothing.
      output: JSON file for all numbers.
      quiet: print the tables only.
    """
    counts = {"lengths": lengths, "heads": heads, "head-dim": (head_dim,), "rows": (rows,)}
    counts |= {"tokens": () if tokens is None else (tokens,), "decode-tokens": decode_tokens}
    counts |= {"repetitions": (repetitions,)}
    for name, values in counts.items():
        if any(value < 1 for value in values):
            raise InputError(f"--{name} must be at least 1, not {min(values)}")
    if heads[0] % heads[1]:
        raise InputError(
            f"--heads {heads[0]} {heads[1]}: the first must be a multiple of the second"
        )
    if output is not None and not output.resolve().parent.is_dir():
        raise InputError(f"--output {output}: its folder does not exist")
    from llama_jax.kernels.benchmark_table import print_compiled, print_measured

    command = {"command": shlex.join(["llama-jax", "bench", "kernels", *_arguments()])}
    if target is not None:
        from llama_jax.kernels.benchmark_compiles import compile_kernels

        results = _collect(compile_kernels(target), quiet)
        result = command | _describe(()) | {"target": target, "kernels": results}
        print_compiled(result)
    else:
        import jax

        device = jax.local_devices()[0]
        defaults = _CPU if device.platform == "cpu" else _ACCELERATOR
        measured = _measure(
            device,
            suites=("attention", "gemm", "decode") if suite == "all" else (suite,),
            lengths=lengths or defaults["lengths"],
            heads=(*heads, head_dim),
            dtype=dtype,
            shapes=_shapes(models or defaults["models"]),
            tokens=tokens or defaults["tokens"],
            decode_tokens=decode_tokens,
            rows=rows,
            repetitions=repetitions,
        )
        results = _collect(measured, quiet)
        result = command | _describe(_PLUGINS.get(device.platform, ()))
        result |= {"device": device.device_kind, "repetitions": repetitions, "rows": results}
        print_measured(result)
    if output is not None:
        output.write_text(json.dumps(result, indent=2) + "\n")
    return int(any("failed" in row for row in results))


def _arguments() -> list[str]:
    """As they were typed, of a process that is this command."""
    at = next((i for i, word in enumerate(sys.argv) if word == "kernels"), len(sys.argv))
    return sys.argv[at + 1 :]


def _describe(plugins: tuple[str, ...]) -> dict[str, Any]:
    from llama_jax.machine_description import describe_machine

    return {"machine": describe_machine(_PACKAGES + plugins) | _flags()}


def _flags() -> dict[str, str]:
    return {
        name: os.environ[name] for name in ("XLA_FLAGS", "LIBTPU_INIT_ARGS") if os.environ.get(name)
    }


def _shapes(models: tuple[str, ...]) -> dict[str, tuple[int, int]]:
    from llama_jax import config
    from llama_jax.kernels.benchmark_gemm import linear_shapes

    configs = {
        "tiny": config.TINY,
        "1b": config.LLAMA_32_1B,
        "8b": config.LLAMA_31_8B,
        "70b": config.LLAMA_31_70B,
        "405b": config.LLAMA_31_405B,
    }
    return {
        f"{model} {layer}": shape
        for model in models
        for layer, shape in linear_shapes(configs[model]).items()
    }


def _measure(
    device, *, suites, lengths, heads, dtype, shapes, tokens, decode_tokens, rows, repetitions
) -> Iterator[dict[str, Any]]:
    import jax.numpy as jnp

    if "attention" in suites:
        from llama_jax.kernels.benchmark_attention import AttentionSizes, measure_attention

        if dtype == "auto":
            dtype = "float32" if device.platform == "cpu" else "bfloat16"
        sizes = AttentionSizes(lengths, *heads, jnp.dtype(dtype))
        yield from measure_attention(sizes, device, repetitions=repetitions)
    if "gemm" in suites:
        from llama_jax.kernels.benchmark_gemm import measure_gemm

        yield from measure_gemm(shapes, tokens, device, repetitions=repetitions)
    if "decode" in suites:
        from llama_jax.kernels import benchmark_decode as decode

        bandwidth = decode.copy_bandwidth(device, repetitions=repetitions)
        yield {"suite": "decode", "layer": "copy", "name": "xla", "bytes_per_second": bandwidth}
        options = {"device": device, "bandwidth": bandwidth, "repetitions": repetitions}
        yield from decode.measure_matrix_vector(shapes, decode_tokens, **options)
        yield from decode.measure_paged_attention(lengths, rows, heads, **options)


def _collect(rows: Iterator[dict[str, Any]], quiet: bool) -> list[dict[str, Any]]:
    """All of them; each is told as it comes."""
    from llama_jax.kernels.benchmark_table import one_line

    collected = []
    for row in rows:
        collected.append(row)
        if not quiet and "refused" not in row:
            print(one_line(row), file=sys.stderr)
    return collected
