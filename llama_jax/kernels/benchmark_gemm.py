"""Products of training in 8 bits beside bfloat16, at the shapes of a model's linear layers.

A linear layer `y = x w^T` is three products: `fprop` sums over inputs, `dgrad` over outputs and
`wgrad` over tokens. Operands start as bfloat16 in the layout that the model has. `excluded` times
the product of operands that are quantised already, as rows along what is summed over; `included`
both quantisations and, where the kernel needs it, the transposition too. In training one scale a
tensor serves two products, so `included` is the most that quantising costs it.

    llama-jax bench train 8b --row-length 8192 --rows 1 --matmul fp8_tensorwise --baseline

compares whole steps.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from llama_jax.accelerators import accelerator
from llama_jax.config import ModelConfig
from llama_jax.errors import InputError
from llama_jax.kernels.benchmark_timing import attempt, median_seconds
from llama_jax.quantization.scaled_operand import ScaledOperand
from llama_jax.quantization.scaled_product import IMPLEMENTATIONS
from llama_jax.quantization.training_matmul import training_matmul
from llama_jax.quantization.training_recipes import RECIPES, TrainingRecipe

# Product -> the dimension of x or dy, and of w, dy or x, that is summed over.
_CONTRACTED = {"fprop": (1, 1), "dgrad": (1, 0), "wgrad": (0, 0)}


def linear_shapes(config: ModelConfig) -> dict[str, tuple[int, int]]:
    """Outputs and inputs of a block's products; those of one input are taken together."""
    query, key_value = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    return {
        "qkv": (query + 2 * key_value, config.model_dim),
        "output": (config.model_dim, query),
        "gate_up": (2 * config.feed_forward_dim, config.model_dim),
        "down": (config.model_dim, config.feed_forward_dim),
    }


def measure_gemm(
    shapes: dict[str, tuple[int, int]], tokens: int, device: jax.Device, *, repetitions: int
) -> Iterator[dict[str, Any]]:
    """One row each for a layer, a product, a recipe, an implementation and with or without
    quantisation: `seconds`, `tflops`, `ratio_to_bfloat16` (larger is faster), `fraction_of_peak` of
    8-bit numbers where it is known; or `refused`, the reason, or `failed`, the error.

    Args:
      shapes: layer -> outputs and inputs.
    """
    contestants = list(_contestants(device))
    for layer, (outputs, inputs) in shapes.items():
        for product, contracted in _CONTRACTED.items():
            left, right = _operands(product, outputs, inputs, tokens)
            size = [left.shape[1 - contracted[0]], right.shape[1 - contracted[1]]]
            size.append(left.shape[contracted[0]])
            head = {"suite": "gemm", "layer": layer, "product": product, "mnk": size}
            operations = 2 * math.prod(size)
            plain = median_seconds(
                lambda x, y, dims=contracted: jax.lax.dot_general(
                    x, y, (((dims[0],), (dims[1],)), ((), ())), preferred_element_type=x.dtype
                ),
                (left, right),
                repetitions=repetitions,
            )
            peaks = accelerator(device.device_kind)
            row = head | {"name": "bfloat16", "seconds": plain, "tflops": operations / plain / 1e12}
            if peaks is not None:
                row["fraction_of_peak"] = operations / plain / peaks.bf16_flops
            yield row | {"ratio_to_bfloat16": 1.0}
            for name, recipe, multiply, reason in contestants:
                row = head | {"name": name}
                reason = reason or _case_refusal(name, recipe, product, size)
                if reason:
                    yield row | {"refused": reason}
                    continue
                for which, seconds in _measure(
                    recipe, multiply, product, contracted, left, right, repetitions
                ):
                    if isinstance(seconds, str):
                        yield row | {"quantisation": which, "failed": seconds}
                        continue
                    rate = operations / seconds
                    times = {"quantisation": which, "seconds": seconds, "tflops": rate / 1e12}
                    if peaks is not None and peaks.fp8_flops is not None:
                        times["fraction_of_peak"] = rate / peaks.fp8_flops
                    yield row | times | {"ratio_to_bfloat16": plain / seconds}


def _contestants(device: jax.Device) -> Iterator[tuple[str, TrainingRecipe, Callable, str | None]]:
    """Name, recipe, product and the reason why this device does not take it, if so."""
    ways = IMPLEMENTATIONS | {"mosaic_gpu fast": _fast}
    for recipe in RECIPES.values():
        for way, multiply in ways.items():
            implementation = way.split()[0]
            if recipe.bf16_weight_gradient and recipe.by_row and recipe.name != "int8":
                if implementation != "mosaic_gpu":
                    continue  # its 8-bit products are those of fp8_rowwise
                recipe = dataclasses.replace(recipe, fused_rows=True)
            if implementation == "emulate" and device.platform == "gpu":
                continue  # a bfloat16 product, which has a row already
            try:
                training_matmul(
                    recipe.name,
                    platform=device.platform,
                    device_kind=device.device_kind,
                    implementation=implementation,
                )
                reason = None
            except InputError as error:
                reason = str(error).split(": ", 1)[1]
            yield f"{recipe.name} by {way}", recipe, multiply, reason


def _case_refusal(name: str, recipe: TrainingRecipe, product: str, size) -> str | None:
    if product == "wgrad" and recipe.bf16_weight_gradient:
        return "the recipe multiplies it in bfloat16"
    columns = 256 if name.endswith("fast") else 128
    if "mosaic_gpu" in name and (size[1] % columns or size[2] % 128):
        return f"the kernel takes N a multiple of {columns} and K of 128, not {size[1:]}"
    return None


def _measure(recipe, multiply, product, contracted, left, right, repetitions):
    is_gradient = (product != "fprop", False)  # of the left, of the right operand
    fast = product == "fprop"

    def quantize(*operands):
        return [
            (recipe.quantize_gradient if gradient else recipe.quantize)(x, (dim,))
            for x, gradient, dim in zip(operands, is_gradient, contracted, strict=True)
        ]

    def whole(left, right):
        return multiply(*quantize(left, right), dtype=left.dtype, fast=fast)

    @jax.jit
    def prepare(left, right):
        """Values as rows along what is summed over, and scales."""
        return [
            (operand.values if dim == 1 else operand.values.T, operand.scale)
            for operand, dim in zip(quantize(left, right), contracted, strict=True)
        ]

    def bare(left, right):
        operands = (ScaledOperand(values, scale, (1,)) for values, scale in (left, right))
        return multiply(*operands, dtype=jnp.bfloat16, fast=fast)

    def included():
        return median_seconds(whole, (left, right), repetitions=repetitions)

    def excluded():
        return median_seconds(bare, prepare(left, right), repetitions=repetitions)

    yield "included", attempt(included)
    yield "excluded", attempt(excluded)


def _fast(left: ScaledOperand, right: ScaledOperand, *, dtype: jnp.dtype, fast: bool) -> jax.Array:
    """Our kernel with its wide tile, whose sums the tensor cores keep; `fast` changes nothing."""
    from llama_jax.kernels.matmul.fp8_gemm_gpu import FAST, fp8_gemm

    rows = [
        (operand.values.transpose(operand.rest + operand.contracted), operand.scale)
        for operand in (left, right)
    ]
    return fp8_gemm(*rows[0], *rows[1], out_dtype=dtype, tile=FAST)


def _operands(product: str, outputs: int, inputs: int, tokens: int) -> tuple[jax.Array, jax.Array]:
    """bfloat16 of the layer's own layouts: x `[tokens, in]`, w `[out, in]`, dy `[tokens, out]`."""
    shapes = {
        "fprop": ((tokens, inputs), (outputs, inputs)),
        "dgrad": ((tokens, outputs), (outputs, inputs)),
        "wgrad": ((tokens, outputs), (tokens, inputs)),
    }
    keys = jax.random.split(jax.random.key(0))
    return tuple(
        jax.random.normal(key, shape, jnp.bfloat16)
        for key, shape in zip(keys, shapes[product], strict=True)
    )
