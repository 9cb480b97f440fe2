"""The TPU kernel for quantised weights: interpreted on a CPU, and compiled for four generations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llama_jax.kernels.compiler_report import compile_for_tpu
from llama_jax.kernels.matmul import weight_only_tpu
from llama_jax.kernels.matmul.weight_only_tpu import refusal, weight_only
from llama_jax.quantization.quantized_tensor import WeightFormat
from tests.kernels.matmul.quantized_weights import SHAPES_8B, abstract_weight, random_weight

V5E = {"platform": "tpu", "device_kind": "TPU v5 lite"}
TARGETS = ["v5e:2x2", "v5p:2x2x1", "v6e:2x2", "tpu7x:2x2x1"]

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.mark.parametrize(
    "format, num_tokens, shape",
    [
        (WeightFormat.FP8, 1, (384, 256)),  # three blocks of outputs
        (WeightFormat.INT8, 7, (256, 4096)),  # two blocks of inputs
        (WeightFormat.INT4, 7, (256, 2048 + 1024)),  # three blocks of inputs, of eight groups
        (WeightFormat.INT4, 64, (128, 640)),  # five groups, all in one block
    ],
    ids=str,
)
def test_equals_the_product_with_the_dequantised_weight(format, num_tokens, shape):
    weight = random_weight(format, *shape)
    x = jax.random.normal(jax.random.key(0), (num_tokens, shape[1]), jnp.bfloat16)
    result = weight_only(x, weight, interpret=True)
    wanted = np.float64(x) @ np.float64(weight.dequantize(jnp.float32)).T
    assert result.dtype == jnp.bfloat16 and result.shape == wanted.shape
    # Exact products summed in float32, then rounded once: half of bfloat16's last place.
    np.testing.assert_allclose(
        np.float64(result), wanted, rtol=2**-8, atol=1e-5 * np.max(np.abs(wanted))
    )


def test_blocks_divide_the_weight_and_stay_small():
    for format in WeightFormat:
        for shape in [*SHAPES_8B, (1024, 4096), (128, 128), (1792, 1792), (128, 8192)]:
            outputs, inputs = weight_only_tpu._block(abstract_weight(format, *shape))
            assert shape[0] % outputs == 0 and shape[1] % inputs == 0
            assert outputs * inputs <= 512 * 2048


def test_what_it_cannot_take_is_refused():
    def reason(num_tokens=8, dtype=jnp.bfloat16, format=WeightFormat.INT8, shape=(4096, 4096)):
        x = jax.ShapeDtypeStruct((num_tokens, shape[1]), dtype)
        return refusal(x, abstract_weight(format, *shape), **V5E)

    assert reason() is None
    assert reason(num_tokens=65) == "it takes 1 to 64 tokens, not 65"
    assert reason(dtype=jnp.float32) == "it multiplies bfloat16, not float32"
    assert "multiples of 128 outputs and inputs, not 576 and 576" in reason(shape=(576, 576))
    int4 = WeightFormat.INT4
    assert "multiples of 1024 inputs in int4" in reason(format=int4, shape=(256, 11008))
    assert reason(format=WeightFormat.INT8, shape=(256, 11008)) is None
    x = jax.ShapeDtypeStruct((8, 4096), jnp.bfloat16)
    weight = abstract_weight(WeightFormat.INT8, 4096, 4096)
    assert "for TPUs, not cpu" in refusal(x, weight, platform="cpu", device_kind="cpu")
    with pytest.raises(ValueError, match="1 to 64 tokens"):
        weight_only(jnp.zeros((65, 128), jnp.bfloat16), random_weight(int4, 128, 128))


def assert_compiles(target: str, format: WeightFormat, num_tokens: int, shape: tuple[int, int]):
    pytest.importorskip("libtpu")
    x = jax.ShapeDtypeStruct((num_tokens, shape[1]), jnp.bfloat16)
    report = compile_for_tpu(weight_only, x, abstract_weight(format, *shape), target=target)
    assert f"weight_only_{format}" in report.hlo and "tpu_custom_call" in report.hlo
    # The weight is read where it lies: nothing of its size is made, and int4 stays packed.
    memory = report.compiled.memory_analysis()
    weight_bytes = shape[0] * shape[1] // (2 if format is WeightFormat.INT4 else 1)
    # Scales, tokens, and what tiles of rows are padded with.
    most = 1.2 * weight_bytes + 2 * max(num_tokens, 16) * shape[1]
    assert weight_bytes <= memory.argument_size_in_bytes <= most
    assert memory.temp_size_in_bytes <= 0.1 * weight_bytes


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("format", WeightFormat)
def test_compiles_for_every_generation(target, format):
    assert_compiles(target, format, 8, (4096, 14336))


@pytest.mark.slow
@pytest.mark.parametrize(
    "target, format, num_tokens, shape",
    [
        # Every target with every shape; formats and numbers of tokens in turn, so that every two
        # of the four meet. The test above has every target with every format.
        (target, list(WeightFormat)[(i + j) % 3], (1, 17, 64)[(i + 2 * j) % 3], shape)
        for i, target in enumerate(TARGETS)
        for j, shape in enumerate([*SHAPES_8B, (1792, 1792)])
    ],
    ids=str,
)
def test_compiles_for_every_generation_at_every_size(target, format, num_tokens, shape):
    assert_compiles(target, format, num_tokens, shape)
