"""Cost formulas against the published numbers and against the arrays themselves."""

import jax
import ml_dtypes
import numpy as np
import pytest

from llama_jax import abstract_params, costs
from llama_jax.config import (
    LLAMA_31_8B,
    LLAMA_31_70B,
    LLAMA_31_405B,
    LLAMA_32_1B,
    LLAMA_32_3B,
    TINY,
)
from llama_jax.quantization.quantize import quantize_weight
from llama_jax.quantization.quantized_tensor import WeightFormat


@pytest.mark.parametrize("config, parameters, kv_bytes", [
    (LLAMA_32_1B, 1_235_814_400, 32 * 1024),
    (LLAMA_32_3B, 3_212_749_824, 112 * 1024),
    (LLAMA_31_8B, 8_030_261_248, 128 * 1024),
    (LLAMA_31_70B, 70_553_706_496, 320 * 1024),
    (LLAMA_31_405B, 405_853_388_800, 504 * 1024),
], ids=["1B", "3B", "8B", "70B", "405B"])  # fmt: skip
def test_published_sizes(config, parameters, kv_bytes):
    assert costs.num_parameters(config) == parameters
    assert sum(leaf.size for leaf in jax.tree.leaves(abstract_params(config))) == parameters
    assert costs.kv_bytes_per_token(config, ml_dtypes.bfloat16) == kv_bytes
    assert costs.weight_bytes(config, ml_dtypes.bfloat16) == 2 * parameters


def test_flops_equal_what_xla_counts():
    # One layer, since XLA counts the body of the scan once; no mask in its count of attention.
    import dataclasses

    import jax.numpy as jnp

    from llama_jax import forward, logits

    config = dataclasses.replace(TINY, num_layers=1, model_dim=256, feed_forward_dim=1024)

    def scores(params, tokens):
        return logits(params, forward(params, tokens, config=config), config=config)

    tokens = jax.ShapeDtypeStruct((1, 128), jnp.int32)
    analysis = jax.jit(scores).lower(abstract_params(config), tokens).compile().cost_analysis()
    ours = 128 * costs.forward_flops_per_token(config, num_keys=128)
    # The rest of XLA's count is norms, softmax and RoPE.
    assert np.isclose(ours, analysis["flops"], rtol=0.05)


@pytest.mark.parametrize("weight_format", [None, *WeightFormat])
def test_stored_bytes_are_those_of_the_formula(weight_format):
    weight = np.ones((6, 256), np.float32)
    if weight_format is not None:
        weight = quantize_weight(weight, weight_format)
    expected = {None: 4 * 6 * 256, "fp8": 6 * 260, "int8": 6 * 260, "int4": 6 * (128 + 8)}
    assert costs.stored_bytes({"weight": weight}) == expected[weight_format]
