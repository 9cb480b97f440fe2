"""What the compilers for Hopper and TPUs make of 8-bit products, on a machine that has neither."""

import collections
import functools
import re

import jax
import jax.numpy as jnp
import pytest

from llama_jax.kernels.compiler_report import compile_for_gpu, compile_for_tpu
from llama_jax.kernels.matmul.fp8_gemm_gpu import FAST, PROMOTED, fp8_gemm
from llama_jax.quantization.fp8_training import quantized_matmul
from llama_jax.quantization.scaled_product import IMPLEMENTATIONS
from llama_jax.quantization.training_matmul import training_matmul
from llama_jax.quantization.training_recipes import RECIPES

# Shapes of x, of a weight, and of the gradient of the result: a query projection.
X, WEIGHT, OUTER = (2, 1024, 2048), (8, 128, 2048), (2, 1024, 8, 128)
# Leaves products to cuBLASLt, which the autotuner of a machine with a GPU would try as well.
NO_TRITON = {"xla_gpu_enable_triton_gemm": False}


def needs_gpu_compiler():
    pytest.importorskip("jax_plugins.xla_cuda13")


def shape(dims, dtype):
    return jax.ShapeDtypeStruct(dims, dtype)


def layer(recipe: str, implementation: str, *shapes):
    """A linear layer, forward and backward, and what it is compiled for."""
    x, weight, outer = shapes or (X, WEIGHT, OUTER)
    matmul = quantized_matmul(RECIPES[recipe], IMPLEMENTATIONS[implementation])

    def run(x, weight, outer):
        y, pull_back = jax.vjp(matmul, x, weight)
        return y, *pull_back(outer)

    return run, shape(x, jnp.bfloat16), shape(weight, jnp.float32), shape(outer, jnp.bfloat16)


def products(hlo: str) -> collections.Counter:
    """Library calls and dots of an optimised program."""
    calls = re.findall(r'custom_call_target="([^"]*(?:gemm|matmul|triton)[^"]*)"', hlo)
    return collections.Counter(calls + re.findall(r"\s(dot)\(", hlo))


def operand_dtypes(hlo: str) -> list[str]:
    """Of the convolutions, which TPUs make of dots."""
    dtypes = dict(re.findall(r"(%\S+) = (\w+)\[", hlo))
    names = re.findall(r" convolution\((%\S+), (%\S+)\)", hlo)
    return [dtypes[name] for pair in names for name in pair]


@pytest.mark.parametrize("out_dtype", [jnp.bfloat16, jnp.float32])
@pytest.mark.parametrize("tile", [PROMOTED, FAST], ids=["promoted", "fast"])
def test_our_kernel_keeps_its_registers_and_its_products_in_flight(tile, out_dtype):
    needs_gpu_compiler()
    (kernel,) = compile_for_gpu(
        functools.partial(fp8_gemm, tile=tile, out_dtype=out_dtype),
        shape((1024, 512), jnp.float8_e4m3fn),
        shape((1024,), jnp.float32),
        shape((512, 512), jnp.float8_e4m3fn),
        shape((512,), jnp.float32),
    ).kernels
    assert kernel.spill_bytes == 0 and kernel.warnings == ()
    wide = f"wgmma.mma_async.sync.aligned.m64n{tile.columns}k32.f32.e4m3.e4m3"
    assert wide in kernel.ptx
    assert kernel.shared_memory_bytes <= 227 * 1024


def test_one_scale_a_tensor_is_three_library_calls_that_write_their_results_once():
    needs_gpu_compiler()
    hlo = compile_for_gpu(*layer("fp8_tensorwise", "cublas"), options=NO_TRITON).hlo
    assert products(hlo) == {"__cublas$lt$matmul$f8": 3}
    # In their own dtype and with the scales: no kernel touches a result afterwards.
    results = re.findall(r"= \((\w+)\[[\d,]+\]\S*, s8\S* custom-call", hlo)
    assert sorted(results) == ["bf16", "bf16", "f32"]
    # Each operand is read for its largest magnitude, and once more for both of its layouts.
    casts = re.findall(r"= \((f8\w+)\[\S+ (f8\w+)\[\S+ fusion\(", hlo)
    assert sorted(casts) == [("f8e4m3fn",) * 2, ("f8e4m3fn",) * 2, ("f8e5m2",) * 2]
    precisions = re.findall(r'"operand_precision":\["(\w+)","\w+"\]', hlo)
    assert sorted(precisions) == ["DEFAULT", "HIGHEST", "HIGHEST"]


@pytest.mark.parametrize(
    "recipe, implementation", [("fp8_tensorwise", "cublas"), ("fp8_rowwise", "xla")]
)
def test_query_key_and_value_of_one_input_stay_in_eight_bits(recipe, implementation):
    """XLA merges products of one input, and a merged one may no longer be what cuBLASLt takes."""
    needs_gpu_compiler()
    matmul = quantized_matmul(RECIPES[recipe], IMPLEMENTATIONS[implementation])
    num_heads = (16, 4, 4)

    def projections(x, *weights):
        return tuple(matmul(x, weight) for weight in weights)

    def run(x, weights, outers):
        results, pull_back = jax.vjp(projections, x, *weights)
        return results, pull_back(outers)

    weights = tuple(shape((heads, 128, 2048), jnp.float32) for heads in num_heads)
    outers = tuple(shape((1, 1024, heads, 128), jnp.bfloat16) for heads in num_heads)
    x = shape((1, 1024, 2048), jnp.bfloat16)
    calls = products(compile_for_gpu(run, x, weights, outers, options=NO_TRITON).hlo)
    assert set(calls) == {"__cublas$lt$matmul$f8"}


@pytest.mark.parametrize(
    "recipe, calls",
    [
        ("fp8_rowwise", {"__cublas$lt$matmul$f8": 3}),
        ("fp8_rowwise_bf16_wgrad", {"__cublas$lt$matmul$f8": 2, "__cublas$lt$matmul": 1}),
    ],
)
def test_scales_a_row_leave_the_library_its_eight_bits(recipe, calls):
    needs_gpu_compiler()
    hlo = compile_for_gpu(*layer(recipe, "xla"), options=NO_TRITON).hlo
    assert products(hlo) == calls


def test_rows_of_our_kernel_are_quantised_in_one_pass_where_nothing_else_is_wanted_of_them():
    needs_gpu_compiler()
    matmul = training_matmul(
        "fp8_rowwise_bf16_wgrad",
        platform="gpu",
        device_kind="NVIDIA H100 80GB HBM3",
        implementation="mosaic_gpu",
    )

    def forward(x, weight):
        return matmul(x, weight)

    arguments = shape(X, jnp.bfloat16), shape(WEIGHT, jnp.float32)
    hlo = compile_for_gpu(forward, *arguments, options=NO_TRITON).hlo
    # Two operands and their product; XLA adds nothing.
    assert len(re.findall(r'custom_call_target="mosaic_gpu', hlo)) == 3
    assert " fusion(" not in hlo


def test_our_kernel_stands_in_for_all_three_products():
    needs_gpu_compiler()
    report = compile_for_gpu(*layer("fp8_rowwise", "mosaic_gpu"), options=NO_TRITON)
    assert not products(report.hlo)
    assert len(re.findall(r'custom_call_target="mosaic_gpu', report.hlo)) == 3


@pytest.mark.parametrize(
    "target, recipe",
    [
        ("v5e:2x2", "fp8_rowwise"),
        ("v5p:2x2x1", "fp8_rowwise"),
        ("v5p:2x2x1", "int8"),
        ("v6e:2x2", "fp8_tensorwise"),
        ("tpu7x:2x2x1", "fp8_tensorwise"),
        ("tpu7x:2x2x1", "fp8_rowwise"),
    ],
)
def test_a_layer_compiles_for_tpus_to_products_of_eight_bits(target, recipe):
    pytest.importorskip("libtpu")
    small = (2, 128, 512), (2, 128, 512), (2, 128, 2, 128)
    hlo = compile_for_tpu(*layer(recipe, "xla", *small), target=target).hlo
    dtypes = collections.Counter(operand_dtypes(hlo))
    # Forward e4m3 x e4m3, then the gradient with the weight and with x; int8 leaves the last alone.
    expected = {
        "fp8_tensorwise": {"f8e4m3fn": 4, "f8e5m2": 2},
        "fp8_rowwise": {"f8e4m3fn": 6},
        "int8": {"s8": 4, "bf16": 2},
    }
    assert dtypes == expected[recipe]
