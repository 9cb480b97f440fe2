"""The Hopper kernel for quantised weights: interpreted on a CPU, and compiled for sm_90a."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llama_jax.kernels import mosaic_gpu_portability
from llama_jax.kernels.compiler_report import compile_for_gpu
from llama_jax.kernels.matmul import weight_only_gpu
from llama_jax.kernels.matmul.weight_only_gpu import refusal, weight_only
from llama_jax.quantization.quantized_tensor import INT4_GROUP, QuantizedTensor, WeightFormat
from tests.kernels.matmul.quantized_weights import SHAPES_8B, abstract_weight, random_weight

H100 = {"platform": "gpu", "device_kind": "NVIDIA H100 80GB HBM3"}


def tokens(num_tokens: int, num_inputs: int) -> jax.Array:
    return jax.random.normal(jax.random.key(num_tokens), (num_tokens, num_inputs), jnp.bfloat16)


def expected(x: jax.Array, weight: QuantizedTensor) -> np.ndarray:
    return np.float64(x) @ np.float64(weight.dequantize(jnp.float32)).T


def assert_is_the_product(result: jax.Array, x: jax.Array, weight: QuantizedTensor) -> None:
    wanted = expected(x, weight)
    assert result.dtype == jnp.bfloat16 and result.shape == wanted.shape
    # Exact products summed in float32, then rounded once: half of bfloat16's last place.
    np.testing.assert_allclose(
        np.float64(result), wanted, rtol=2**-8, atol=1e-5 * np.max(np.abs(wanted))
    )


pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.mark.parametrize(
    "format, num_tokens, shape",
    [
        (WeightFormat.FP8, 1, (128, 256)),
        (WeightFormat.INT8, 20, (256, 256)),
        (WeightFormat.INT4, 1, (128, 512)),
        (WeightFormat.INT4, 20, (256, 512)),
    ],
    ids=str,
)
def test_equals_the_product_with_the_dequantised_weight(format, num_tokens, shape):
    """One token over several warpgroups; 20, padded to 24, over warpgroups of two bands each."""
    x, weight = tokens(num_tokens, shape[1]), random_weight(format, *shape)
    assert_is_the_product(weight_only(x, weight, interpret=True), x, weight)


@pytest.mark.parametrize(
    "format", [WeightFormat.INT8, pytest.param(WeightFormat.INT4, marks=pytest.mark.slow)]
)
def test_the_ring_goes_round_and_shares_of_the_inputs_may_differ(format, monkeypatch):
    block = 1024 // weight_only_gpu._BITS[format]
    x, weight = tokens(64, 7 * block), random_weight(format, 64, 7 * block)
    # Two splits of 3 and 4 tiles, in a ring of two.
    monkeypatch.setattr(weight_only_gpu, "_NUM_SMS", 2)
    monkeypatch.setattr(weight_only_gpu, "_RING_BYTES", 2 * (64 * 128 + 64 * block * 2))
    plan = weight_only_gpu._plan(64, weight)
    assert (plan.splits, plan.stages) == (2, 2)
    assert_is_the_product(weight_only(x, weight, interpret=True), x, weight)


@pytest.mark.slow
@pytest.mark.parametrize("format", WeightFormat)
@pytest.mark.parametrize("num_tokens", [1, 7, 8, 16, 17, 33, 64])
def test_takes_any_number_of_tokens(format, num_tokens):
    x, weight = tokens(num_tokens, 512), random_weight(format, 192, 512)
    assert_is_the_product(weight_only(x, weight, interpret=True), x, weight)


@pytest.mark.slow
def test_warpgroups_do_not_race(monkeypatch):
    watched = functools.partial(mosaic_gpu_portability.gpu_kernel, detect_races=True)
    monkeypatch.setattr(weight_only_gpu, "gpu_kernel", watched)
    monkeypatch.setattr(weight_only_gpu, "_NUM_SMS", 1)
    monkeypatch.setattr(weight_only_gpu, "_RING_BYTES", 2 * (128 * 128 + 8 * 128 * 2))
    x, weight = tokens(3, 512), random_weight(WeightFormat.INT8, 128, 512)
    assert_is_the_product(weight_only(x, weight, interpret=True), x, weight)
    assert not mosaic_gpu_portability.races_found()


@pytest.mark.parametrize("format", WeightFormat)
@pytest.mark.parametrize("num_tokens", [1, 24, 64])
@pytest.mark.parametrize("shape", [*SHAPES_8B, (4096, 4096), (1024, 4096), (64, 1024)])
def test_every_input_is_read_once_and_a_block_fits(format, num_tokens, shape):
    plan = weight_only_gpu._plan(num_tokens, abstract_weight(format, *shape))
    num_blocks = shape[1] // plan.block
    bounds = [split * num_blocks // plan.splits for split in range(plan.splits + 1)]
    assert bounds[0] == 0 and bounds[-1] == num_blocks
    assert all(first < last for first, last in zip(bounds, bounds[1:], strict=False))
    assert shape[0] % plan.rows == 0 and plan.stages >= 1 and plan.tokens >= num_tokens


def test_what_it_cannot_take_is_refused():
    x = jax.ShapeDtypeStruct((8, 4096), jnp.bfloat16)
    weight = abstract_weight(WeightFormat.INT8, 4096, 4096)
    assert refusal(x, weight, **H100) is None
    assert "not cpu" in refusal(x, weight, platform="cpu", device_kind="cpu")
    assert "not NVIDIA A100" in refusal(x, weight, platform="gpu", device_kind="NVIDIA A100-PCIE")

    def reason(num_tokens=8, dtype=jnp.bfloat16, format=WeightFormat.INT8, shape=(4096, 4096)):
        x = jax.ShapeDtypeStruct((num_tokens, shape[1]), dtype)
        return refusal(x, abstract_weight(format, *shape), **H100)

    assert reason(num_tokens=65) == "it takes 1 to 64 tokens, not 65"
    assert reason(dtype=jnp.float32) == "it multiplies bfloat16, not float32"
    assert "64 outputs and 128 inputs in int8, not 100 and 4096" in reason(shape=(100, 4096))
    assert "64 outputs and 256 inputs in int4" in reason(format=WeightFormat.INT4, shape=(64, 384))
    with pytest.raises(ValueError, match="1 to 64 tokens"):
        weight_only(tokens(65, 128), random_weight(WeightFormat.INT8, 64, 128), interpret=True)


def assert_compiles_well(format: WeightFormat, num_tokens: int, shape: tuple[int, int]) -> None:
    pytest.importorskip("jax_plugins.xla_cuda13")
    x = jax.ShapeDtypeStruct((num_tokens, shape[1]), jnp.bfloat16)
    report = compile_for_gpu(weight_only, x, abstract_weight(format, *shape))
    (kernel,) = report.kernels
    assert kernel.spill_bytes == 0 and kernel.warnings == ()
    assert kernel.shared_memory_bytes <= 227 * 1024
    assert kernel.count("cp.async.bulk.tensor") > 0
    padded = -(-num_tokens // 8) * 8
    assert kernel.count(f"wgmma.mma_async.sync.aligned.m64n{padded}k16.f32.bf16.bf16") > 0
    # The weight is read where it lies, packed: nothing widens or copies it first.
    bits = weight_only_gpu._BITS[format]
    memory = report.compiled.memory_analysis()
    weight_bytes = shape[0] * shape[1] * bits // 8
    scale_bytes = 4 * shape[0] * (shape[1] // INT4_GROUP if bits == 4 else 1)
    assert memory.argument_size_in_bytes == weight_bytes + scale_bytes + 2 * num_tokens * shape[1]
    plan = weight_only_gpu._plan(num_tokens, abstract_weight(format, *shape))
    assert memory.temp_size_in_bytes <= (
        4 * plan.splits * shape[0] * plan.tokens + 2 * plan.tokens * shape[1] + 1024
    )


@pytest.mark.parametrize("format", WeightFormat)
def test_compiles_for_hopper_without_spills(format):
    # A size of its own: a kernel that was compiled before in this process is not reported again.
    assert_compiles_well(format, 8, (4096, 8192))


@pytest.mark.slow
@pytest.mark.parametrize(
    "format, num_tokens, shape",
    [
        # Every format with every number of tokens; shapes in turn, so that every two meet.
        (format, num_tokens, SHAPES_8B[(i + j) % 3])
        for i, format in enumerate(WeightFormat)
        for j, num_tokens in enumerate([1, 16, 24, 64])
    ],
    ids=str,
)
def test_compiles_for_hopper_at_every_size_without_spills(format, num_tokens, shape):
    assert_compiles_well(format, num_tokens, shape)
