"""Products with quantised weights, chosen by name."""

import functools
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llama_jax.errors import InputError
from llama_jax.kernels.matmul import flattened, weight_only_tpu
from llama_jax.kernels.matmul.few_tokens import MAX_TOKENS
from llama_jax.kernels.matmul.implementations import weight_only_matmul
from llama_jax.kernels.named_choice import report_choice
from llama_jax.quantization.quantized_tensor import QuantizedTensor, WeightFormat

CPU = {"platform": "cpu", "device_kind": "cpu"}
TPU = {"platform": "tpu", "device_kind": "TPU v5 lite"}
H100 = {"platform": "gpu", "device_kind": "NVIDIA H100 80GB HBM3"}


@pytest.fixture
def interpreted(monkeypatch):
    """The TPU kernel, interpreted; its calls are counted in the list."""
    calls = []
    kernel = functools.partial(weight_only_tpu.weight_only, interpret=True)
    monkeypatch.setattr(
        weight_only_tpu, "weight_only", lambda x, w: calls.append(x.shape) or kernel(x, w)
    )
    report_choice.cache_clear()
    return calls


def output_projection() -> QuantizedTensor:
    """int4 `[outputs 128, heads 4, head dim 64]`: a group is two heads."""
    values = jax.random.randint(jax.random.key(0), (128, 4, 64), -7, 8).astype(jnp.int4)
    scales = jax.random.uniform(jax.random.key(1), (128, 2), minval=0.5)
    return QuantizedTensor(values, scales, WeightFormat.INT4)


def test_a_kernel_multiplies_what_stands_in_several_dimensions(interpreted):
    weight = output_projection()
    x = jax.random.normal(jax.random.key(2), (3, 1, 4, 64), jnp.bfloat16)
    result = weight_only_matmul("weight_only_tpu", **TPU)(x, weight, contracted=2)
    assert interpreted == [(3, 256)] and result.dtype == x.dtype
    wanted = np.einsum("bthd,ohd->bto", np.float64(x), np.float64(weight.dequantize(jnp.float32)))
    # Rounded once, to bfloat16, from float32 sums.
    np.testing.assert_allclose(np.float64(result), wanted, rtol=2**-8, atol=1e-3)


def test_prompts_and_unquantised_weights_are_multiplied_plainly(interpreted, caplog):
    caplog.set_level(logging.INFO)
    matmul, weight = weight_only_matmul("weight_only_tpu", **TPU), output_projection()
    prompt = jax.random.normal(jax.random.key(2), (1, MAX_TOKENS + 1, 4, 64), jnp.bfloat16)
    plain = weight.dequantize(jnp.bfloat16)
    for x, w in ((prompt, weight), (prompt[:, :1], plain)):
        np.testing.assert_array_equal(
            np.float32(matmul(x, w, contracted=2)),
            np.float32(flattened.matmul(x, w, contracted=2)),
        )
    assert not interpreted
    assert "65 tokens, which is more than the 64 of a kernel" in "".join(caplog.messages)
    matmul(prompt[:, 1:], weight, contracted=2)
    assert interpreted == [(MAX_TOKENS, 256)]


def test_one_name_is_strict_and_says_why():
    x, weight = jnp.ones((2, 4, 64), jnp.bfloat16), output_projection()
    with pytest.raises(InputError, match=r"weight_only_gpu: .*not cpu\. These take it: xla$"):
        weight_only_matmul("weight_only_gpu", **CPU)(x, weight, contracted=2)
    with pytest.raises(InputError, match=r"multiplies bfloat16, not float32\. .*: xla$"):
        weight_only_matmul("weight_only_tpu", **TPU)(x.astype(jnp.float32), weight, contracted=2)
    with pytest.raises(InputError, match="for TPUs, not NVIDIA H100.*xla, weight_only_gpu$"):
        weight_only_matmul("weight_only_tpu", **H100)(x, weight, contracted=2)
    with pytest.raises(InputError, match="'weight_only' is not one of xla, weight_only_gpu"):
        weight_only_matmul("weight_only", **CPU)


def test_of_several_names_the_first_that_can_runs_and_is_logged_once(interpreted, caplog):
    x, weight = jnp.ones((2, 4, 64), jnp.bfloat16), output_projection()
    with caplog.at_level(logging.INFO):
        names = ("weight_only_gpu", "weight_only_tpu", "xla")
        for _ in range(2):
            weight_only_matmul(names, **TPU)(x, weight, contracted=2)
        weight_only_matmul(names, **CPU)(x, weight, contracted=2)
    on_tpu, on_cpu = caplog.messages
    assert on_tpu.startswith("matmul: weight_only_tpu (int4 weight of 128 outputs and 256 inputs")
    assert "2 tokens); refused: weight_only_gpu: it is written for Hopper GPUs" in on_tpu
    assert on_cpu.startswith("matmul: xla") and "; weight_only_tpu: it is" in on_cpu
    assert interpreted == [(2, 256)] * 2
