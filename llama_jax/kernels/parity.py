"""Each kernel that a device takes, on a small case, beside plain jnp on the CPU.

    python -m llama_jax.kernels.parity             lists them: one JSON object
    python -m llama_jax.kernels.parity NAME        runs one: {"error": ..., "tolerance": ...}

`llama-jax doctor` starts a process for each, with a time limit: a kernel may hang. Errors are
largest differences as a share of the largest magnitude expected.
"""

import functools
import json
import sys
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from llama_jax.errors import InputError
from llama_jax.kernels.attention import reference
from llama_jax.kernels.attention.case import AttentionCase
from llama_jax.kernels.attention.implementations import IMPLEMENTATIONS, implementation, refusal
from llama_jax.kernels.attention.mask import MaskForm, packed_mask
from llama_jax.kernels.paged_attention import implementations as paged_implementations
from llama_jax.kernels.paged_attention import reference as paged_reference
from llama_jax.kernels.paged_attention.case import case_of
from llama_jax.kernels.paged_attention.pages import init_pages, write_pages
from llama_jax.quantization.quantize import VALUE_DTYPES, quantize_weight
from llama_jax.quantization.quantized_tensor import QuantizedTensor, WeightFormat
from llama_jax.quantization.scaled_product import IMPLEMENTATIONS as PRODUCTS
from llama_jax.quantization.training_matmul import training_matmul
from llama_jax.quantization.training_recipes import RECIPES

# float32 with another order of sums, or bfloat16 with 8 bits of mantissa: probabilities, results
# and gradients are each rounded once, which makes some of its steps of 2^-8.
_TOLERANCES = {"float32": 1e-4, "bfloat16": 0.03}
# Hopper's FP8 units keep about 14 bits of a sum; results are bfloat16.
_FP8_TOLERANCE = 0.03
_HEADS, _KV_HEADS, _LENGTH, _HEAD_DIM = 8, 2, 512, 128

# One of each kind for which there are products.
_PRODUCT_DEVICES = tuple(
    {"platform": platform, "device_kind": kind}
    for platform, kind in (("cpu", "cpu"), ("gpu", "NVIDIA H100 80GB HBM3"), ("tpu", "TPU v5 lite"))
)

# What to compare, on the device and on the CPU; the arguments of both; the tolerance. Arguments and
# no constants, which the compiler would compute with itself.
Check = tuple[Callable, Callable, tuple, float]


def checks(device: jax.Device) -> dict[str, Callable[[], Check] | str]:
    """Kernel -> its check, or the reason why `device` does not take it."""
    found: dict[str, Callable[[], Check] | str] = {}
    dtype = jnp.dtype(jnp.float32 if device.platform == "cpu" else jnp.bfloat16)
    where = {"platform": device.platform, "device_kind": device.device_kind}
    case = AttentionCase(
        **where,
        dtype=dtype,
        num_heads=_HEADS,
        num_kv_heads=_KV_HEADS,
        head_dim=_HEAD_DIM,
        num_queries=_LENGTH,
        num_keys=_LENGTH,
        form=MaskForm.PACKED,
        return_lse=False,
    )
    for name in IMPLEMENTATIONS:
        if name != "reference":
            check = functools.partial(_attention, name, case)
            found[f"attention {name}"] = refusal(name, case) or check
    query, pages, *_ = jax.eval_shape(_paged_arrays)
    for name in paged_implementations.IMPLEMENTATIONS:
        if name != "reference":
            reason = paged_implementations.implementation(name).refusal(
                case_of(query, pages, **where)
            )
            found[f"paged attention {name}"] = reason or functools.partial(_paged, name)
    for recipe in RECIPES:
        for way in PRODUCTS:
            if way != "emulate" and _exists(recipe, way):
                reason = _product_refusal(recipe, way, where)
                check = functools.partial(_product, recipe, way, where)
                found[f"{recipe} by {way}"] = reason or check
    from llama_jax.kernels.matmul import weight_only_gpu, weight_only_tpu

    for module in (weight_only_gpu, weight_only_tpu):
        for weight_format in WeightFormat:
            name = f"{module.__name__.rpartition('.')[2]} {weight_format}"
            check = functools.partial(_weight_only, module.weight_only, weight_format)
            found[name] = module.refusal(*_weight_shapes(weight_format), **where) or check
    return found


def run(check: Check) -> dict[str, float]:
    """`error` of the device's result, and the `tolerance`."""
    ours, expected, arguments, tolerance = check
    result = jax.tree.leaves(jax.jit(ours)(*arguments))
    cpu = jax.local_devices(backend="cpu")[0]
    oracle = jax.tree.leaves(jax.jit(expected)(*jax.device_put(arguments, cpu)))
    errors = []
    for x, y in zip(result, oracle, strict=True):
        x, y = np.asarray(x, np.float32), np.asarray(y, np.float32)
        errors.append(np.abs(x - y).max() / np.abs(y).max())
    # The largest, or NaN.
    return {"error": float(np.max(errors)), "tolerance": tolerance}


def _attention(name: str, case: AttentionCase) -> Check:
    def both_ways(attention, dtype, options, mask, gradient, *arrays):
        attend = functools.partial(attention, mask=mask, scale=_HEAD_DIM**-0.5, **options)
        output, pull_back = jax.vjp(attend, *(x.astype(dtype) for x in arrays))
        return output, pull_back(gradient.astype(dtype))

    module = implementation(name)
    options = module.options(case) if hasattr(module, "options") else {}
    arrays = [
        _random(i, (1, count, _LENGTH, _HEAD_DIM)).astype(case.dtype)
        for i, count in enumerate((_HEADS, _HEADS, _KV_HEADS, _KV_HEADS))
    ]
    return (
        functools.partial(both_ways, module.attention, case.dtype, options),
        functools.partial(both_ways, reference.attention, jnp.float32, {}),
        (packed_mask(jnp.arange(_LENGTH)[None] // 200), *arrays),
        _TOLERANCES[case.dtype.name],
    )


def _paged_arrays():
    rows, page_size, per_row = 2, 64, 4
    query = _random(0, (rows, _HEADS, 1, _HEAD_DIM)).astype(jnp.bfloat16)
    table = jnp.arange(rows * per_row, dtype=jnp.int32)[::-1].reshape(rows, per_row)
    pages = init_pages(rows * per_row, page_size, 4, _HEAD_DIM, jnp.bfloat16)
    positions = jnp.broadcast_to(jnp.arange(page_size * per_row), (rows, page_size * per_row))
    key, value = (_random(i, (rows, 4, page_size * per_row, _HEAD_DIM)) for i in (1, 2))
    pages = write_pages(pages, table, positions, key, value)
    return query, pages, table, jnp.asarray([200, 37], jnp.int32)


def _paged(name: str) -> Check:
    ours = paged_implementations.implementation(name).paged_attention
    return (
        functools.partial(ours, scale=_HEAD_DIM**-0.5),
        functools.partial(paged_reference.paged_attention, scale=_HEAD_DIM**-0.5),
        _paged_arrays(),
        _TOLERANCES["bfloat16"],
    )


def _exists(recipe: str, way: str) -> bool:
    """Whether any device multiplies so: most kernels are for one recipe."""
    return any(_product_refusal(recipe, way, where) is None for where in _PRODUCT_DEVICES)


def _product_refusal(recipe: str, way: str, where) -> str | None:
    if way == "cublas" and where["platform"] != "gpu":
        return "it is a library of NVIDIA GPUs; elsewhere XLA would compile its own product"
    try:
        training_matmul(recipe, implementation=way, **where)
    except InputError as error:
        return str(error).split(": ", 1)[1]
    return None


def _product(recipe: str, way: str, where) -> Check:
    def both_ways(options, x, weight, gradient):
        output, pull_back = jax.vjp(training_matmul(recipe, **options), x, weight)
        return output, pull_back(gradient)

    emulated = {"platform": "cpu", "device_kind": "cpu", "implementation": "emulate"}
    return (
        functools.partial(both_ways, where | {"implementation": way}),
        functools.partial(both_ways, emulated),
        (
            _random(0, (256, 1024)).astype(jnp.bfloat16),
            _random(1, (512, 1024)),
            _random(2, (256, 512)).astype(jnp.bfloat16),
        ),
        _FP8_TOLERANCE,
    )


def _weight_arrays(weight_format: WeightFormat):
    random = np.random.default_rng(0)
    weight = quantize_weight(random.normal(size=(256, 1024)).astype(np.float32), weight_format)
    return jnp.asarray(random.normal(size=(4, 1024)), jnp.bfloat16), jax.tree.map(
        jnp.asarray, weight
    )


def _weight_shapes(weight_format: WeightFormat):
    values = jax.ShapeDtypeStruct((256, 1024), VALUE_DTYPES[weight_format])
    x, scales = jax.ShapeDtypeStruct((4, 1024), jnp.bfloat16), None
    return x, QuantizedTensor(values, scales, weight_format)


def _weight_only(kernel: Callable, weight_format: WeightFormat) -> Check:
    def expected(x, weight):
        return x.astype(jnp.float32) @ weight.dequantize(jnp.float32).T

    return kernel, expected, _weight_arrays(weight_format), _TOLERANCES["bfloat16"]


def _random(seed: int, shape: tuple[int, ...]) -> jax.Array:
    """The same numbers on every device."""
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def main(arguments: list[str]) -> None:
    """What the module's text says."""
    device = jax.local_devices()[0]
    found = checks(device)
    if arguments:
        result = run(found[arguments[0]]())
    else:
        result = {name: x if isinstance(x, str) else None for name, x in found.items()}
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1:])
