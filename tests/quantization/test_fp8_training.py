"""Products of training in 8 bits: against numpy's on the same quantised values, and on the true."""

import functools
import math

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from llama_jax.kernels.matmul import reference
from llama_jax.quantization.fp8_training import quantized_matmul
from llama_jax.quantization.scaled_product import IMPLEMENTATIONS
from llama_jax.quantization.training_recipes import RECIPES

pytestmark = pytest.mark.usefixtures("quick_compilation")

E4M3, E5M2 = ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2
# Per recipe: formats of activations and of gradients, and whether rows have scales of their own.
FORMATS = {
    "fp8_tensorwise": (E4M3, E5M2, False),
    "fp8_rowwise": (E4M3, E4M3, True),
    "fp8_rowwise_bf16_wgrad": (E4M3, E4M3, True),
    "int8": (np.int8, np.int8, True),
}
# Those that a CPU runs; `mosaic_gpu` is interpreted in tests/kernels/matmul/test_fp8_gemm_gpu.py.
CASES = [
    *((recipe, "emulate") for recipe in FORMATS),
    *((recipe, "xla") for recipe in ("fp8_rowwise", "int8")),
    ("fp8_tensorwise", "cublas"),
]
# Contracted dimensions, shapes, and the einsum equations of the three products.
LAYERS = {
    "query": (1, (2, 12, 32), (4, 6, 32), "bti,nhi->btnh", "btnh,nhi->bti", "btnh,bti->nhi"),
    "output": (2, (2, 12, 4, 8), (24, 4, 8), "btnh,onh->bto", "bto,onh->btnh", "bto,btnh->onh"),
    "one_row": (1, (32,), (7, 32), "i,oi->o", "o,oi->i", "o,i->oi"),
}


@functools.cache
def matmul_of(recipe: str, implementation: str):
    return quantized_matmul(RECIPES[recipe], IMPLEMENTATIONS[implementation])


def requantised(x: np.ndarray, dtype, axes: tuple[int, ...] | None, power_of_two: bool):
    """float64 numbers that are left of `x` with one scale for what `axes` run through."""
    # float32 as a GPU would, or a number between two integers could fall to the other side.
    largest = np.float32({E4M3: 448.0, E5M2: 57344.0, np.int8: 127.0}[dtype])
    scale = np.max(np.abs(np.float32(x)), axes, keepdims=True) / largest
    if power_of_two:
        scale = np.float32(2.0) ** np.ceil(np.log2(scale))
    scaled = np.clip(np.float32(x) / scale, -largest, largest)
    values = (np.rint(scaled) if dtype is np.int8 else scaled).astype(dtype)
    return np.float64(values) * np.float64(scale)


def emulated(recipe: str, layer: str, x, weight, outer):
    """What the three products of a layer should be, float64, from numpy alone."""
    contracted, _, _, *equations = LAYERS[layer]
    dtype, gradient_dtype, by_row = FORMATS[recipe]

    def numbers(x, axes, dtype):
        return requantised(x, dtype, axes if by_row else None, dtype is not np.int8)

    inputs = tuple(range(-contracted, 0))
    num_outputs = weight.ndim - contracted
    outputs, tokens = tuple(range(num_outputs)), tuple(range(x.ndim - contracted))
    of_outputs = tuple(range(-num_outputs, 0))
    y = np.einsum(equations[0], numbers(x, inputs, dtype), numbers(weight, inputs, dtype))
    dx = np.einsum(
        equations[1], numbers(outer, of_outputs, gradient_dtype), numbers(weight, outputs, dtype)
    )
    if recipe in ("fp8_rowwise_bf16_wgrad", "int8"):
        return y, dx, np.einsum(equations[2], np.float64(outer), np.float64(x))
    dw = np.einsum(equations[2], numbers(outer, tokens, gradient_dtype), numbers(x, tokens, dtype))
    return y, dx, dw


def case(layer: str, dtype=jnp.bfloat16, seed: int = 0):
    """Operands with a few channels a hundred times the others, as trained models have them."""
    _, x_shape, weight_shape, equation, *_ = LAYERS[layer]
    keys = jax.random.split(jax.random.key(seed), 3)
    x = jax.random.normal(keys[0], x_shape)
    x = jnp.where(jnp.arange(x_shape[-1]) % 7 == 3, 100.0 * x, x).astype(dtype)
    weight = 0.02 * jax.random.normal(keys[1], weight_shape)
    shape = jax.eval_shape(lambda x, w: jnp.einsum(equation, x, w), x, weight).shape
    return x, weight, (1e-3 * jax.random.normal(keys[2], shape)).astype(dtype)


@functools.partial(jax.jit, static_argnums=(0, 1))
def three_products(matmul, layer: str, x, weight, outer):
    contracted = LAYERS[layer][0]
    y, pull_back = jax.vjp(lambda x, w: matmul(x, w, contracted=contracted), x, weight)
    return y, *pull_back(outer)


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("recipe, implementation", CASES)
def test_products_and_gradients_are_those_of_the_quantised_numbers(recipe, implementation, layer):
    operands = case(layer)
    results = three_products(matmul_of(recipe, implementation), layer, *operands)
    expected = emulated(recipe, layer, *operands)
    assert [result.dtype for result in results] == [jnp.bfloat16, jnp.bfloat16, jnp.float32]
    for result, wanted in zip(results, expected, strict=True):
        # The same products of the same numbers, summed in float32; then one rounding to the dtype.
        tolerance = 2**-8 if result.dtype == jnp.bfloat16 else 1e-5
        largest = np.max(np.abs(wanted))
        np.testing.assert_allclose(np.float64(result), wanted, rtol=tolerance, atol=1e-6 * largest)


# Relative error of a rounded number, uniform within half a unit in the last place: at most 2^-4 in
# e4m3 and 2^-3 in e5m2, a root mean square of about 0.027 and 0.053. Two rounded factors add their
# squares; a sum of random products has the error of one. Integers lose what lies far below the
# largest of a row, a hundred times the others here.
@pytest.mark.parametrize(
    "recipe, bounds",
    [
        ("fp8_tensorwise", (0.045, 0.07, 0.07)),
        ("fp8_rowwise", (0.045, 0.045, 0.045)),
        ("fp8_rowwise_bf16_wgrad", (0.045, 0.045, 1e-5)),
        ("int8", (0.02, 0.02, 1e-5)),
    ],
)
def test_errors_against_the_unquantised_product_are_within_what_the_format_rounds(recipe, bounds):
    keys = jax.random.split(jax.random.key(3), 3)
    x = jax.random.normal(keys[0], (256, 512)).astype(jnp.bfloat16)
    weight = 0.02 * jax.random.normal(keys[1], (128, 512))
    outer = jax.random.normal(keys[2], (256, 128)).astype(jnp.bfloat16)
    results = three_products(matmul_of(recipe, "emulate"), "query", x, weight, outer)
    x, weight, outer = np.float64(x), np.float64(weight), np.float64(outer)
    for result, exact, bound in zip(
        results, (x @ weight.T, outer @ weight, outer.T @ x), bounds, strict=True
    ):
        error = np.linalg.norm(np.float64(result) - exact) / np.linalg.norm(exact)
        assert error <= bound
        assert bound < 1e-4 or error > bound / 4  # it is quantised


@pytest.mark.parametrize("recipe, implementation", CASES)
def test_weight_gradients_are_never_rounded_to_the_dtype_of_activations(recipe, implementation):
    _, _, gradient = three_products(matmul_of(recipe, implementation), "query", *case("query"))
    rounded = gradient.astype(jnp.bfloat16).astype(jnp.float32)
    assert gradient.dtype == jnp.float32 and np.mean(gradient != rounded) > 0.9


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_scale_of_operands_does_not_change_the_result_but_by_its_power(recipe):
    x, weight, outer = case("query")
    matmul = matmul_of(recipe, "emulate")
    plain = three_products(matmul, "query", x, weight, outer)
    # As far as the results, in float32 or bfloat16, are still normal numbers. Integers' scales are
    # no powers of two and are rounded, which may move a number that lies between two.
    tolerance = 0.02 if recipe == "int8" else 1e-6
    for exponent in (-60, 20):
        power = 2.0**exponent
        scaled = three_products(matmul, "query", x * power, weight, outer)
        for got, wanted in zip(scaled, (plain[0] * power, plain[1], plain[2] * power), strict=True):
            np.testing.assert_allclose(
                np.float64(got),
                np.float64(wanted),
                rtol=tolerance,
                atol=tolerance * float(jnp.max(jnp.abs(wanted))),
            )


@pytest.mark.parametrize("recipe, implementation", CASES)
def test_zero_huge_and_tiny_operands_stay_finite(recipe, implementation):
    matmul = matmul_of(recipe, implementation)
    x, weight, outer = case("query")
    for factor in (0.0, 1e-30, 1e6, 1e30):
        results = three_products(matmul, "query", (x * factor).astype(x.dtype), weight, outer)
        assert all(np.all(np.isfinite(np.float32(result))) for result in results)
        assert factor != 0.0 or (not np.any(results[0]) and not np.any(results[2]))
    zeros = three_products(matmul, "query", x, weight, 0 * outer)
    assert not np.any(zeros[1]) and not np.any(zeros[2])


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("recipe, implementation", CASES)
def test_what_is_not_finite_is_not_hidden(recipe, implementation, bad):
    matmul = matmul_of(recipe, implementation)
    x, weight, outer = case("query")
    y, _, weight_gradient = three_products(matmul, "query", x.at[0, 3, 5].set(bad), weight, outer)
    assert np.all(np.isnan(np.float32(y[0, 3]))), "the token's row"
    assert np.any(~np.isfinite(weight_gradient))
    if RECIPES[recipe].by_row:
        assert np.all(np.isfinite(np.float32(y[1]))), "other tokens"
    y, of_x, _ = three_products(matmul, "query", x, weight.at[1, 2, 3].set(bad), outer)
    assert np.all(np.isnan(np.float32(y[..., 1, 2])))
    assert np.any(np.isnan(np.float32(of_x)))
    _, of_x, weight_gradient = three_products(
        matmul, "query", x, weight, outer.at[0, 1, 2, 3].set(bad)
    )
    assert np.all(np.isnan(np.float32(of_x[0, 1])))
    assert np.any(~np.isfinite(weight_gradient))


@pytest.mark.parametrize("recipe, implementation", CASES)
def test_gradients_pass_through_scan_and_checkpoint(recipe, implementation):
    matmul = matmul_of(recipe, implementation)
    # Activations in float32: in bfloat16 one rounding more or less, as the compiler fuses or not,
    # is amplified where it moves a number to its neighbour in 8 bits.
    x = jax.random.normal(jax.random.key(0), (4, 3, 16))
    weights = jax.random.normal(jax.random.key(1), (3, 16, 16)) / 4

    def gradients(remat, scan):
        def layer(x, weight):
            return x + jax.nn.silu(matmul(x, weight)), None

        layer = jax.checkpoint(layer) if remat else layer

        def loss(x, weights):
            if scan:
                x = jax.lax.scan(layer, x, weights)[0]
            else:
                for weight in weights:
                    x = layer(x, weight)[0]
            return jnp.mean(x.astype(jnp.float32) ** 2)

        return jax.jit(jax.grad(loss, argnums=(0, 1)))(x, weights)

    plain = gradients(remat=False, scan=False)
    for got, wanted in zip(gradients(remat=True, scan=True), plain, strict=True):
        # The same quantised numbers, summed in float32 in other orders through three layers.
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-6)


def test_the_unquantised_weight_gradient_is_the_reference_s():
    operands = case("query")
    wanted = three_products(reference.matmul, "query", *operands)[2]
    for recipe in ("fp8_rowwise_bf16_wgrad", "int8"):
        got = three_products(matmul_of(recipe, "emulate"), "query", *operands)[2]
        # Two compilations of the same float32 sums.
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)
