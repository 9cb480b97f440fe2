"""Products in 8 bits on a mesh: the numbers of one device, and weights gathered in eight bits."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from llama_jax.compile_targets import target_devices
from llama_jax.quantization.fp8_training import quantized_matmul
from llama_jax.quantization.scaled_product import IMPLEMENTATIONS
from llama_jax.quantization.training_recipes import RECIPES


def gradients(matmul):
    """Of a stack of feed-forward layers without a gate, as training runs them."""

    def loss(weights, x):
        def layer(x, weights):
            up, down = weights
            return x + matmul(jax.nn.silu(matmul(x, up)), down), None

        x, _ = jax.lax.scan(jax.checkpoint(layer), x, weights)
        return jnp.sum(x.astype(jnp.float32) ** 2)

    return lambda weights, x: jax.grad(loss)(weights, x)


def laid_out_on(devices):
    """Weights over fsdp and tensor, rows over fsdp: `sharding/rules.py`."""
    mesh = Mesh(np.array(devices).reshape(-1, 2), ("fsdp", "tensor"))
    specs = (P(None, "tensor", "fsdp"), P(None, "fsdp", "tensor")), P("fsdp")
    return jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs)


@pytest.mark.parametrize(
    "recipe, implementation",
    [("fp8_tensorwise", "cublas"), ("fp8_rowwise", "xla"), ("int8", "emulate")],
)
def test_gradients_are_those_of_one_device(recipe, implementation):
    keys = jax.random.split(jax.random.key(0), 3)
    # Float32 activations, one layer: a sum in another order that comes out a bfloat16 further would
    # be quantised to a neighbour by the next product, and is not what is tested here.
    weights = tuple(
        jax.random.normal(key, shape) / 4
        for key, shape in zip(keys, ((1, 32, 16), (1, 16, 32)), strict=False)
    )
    x = jax.random.normal(keys[2], (8, 4, 16))
    run = gradients(quantized_matmul(RECIPES[recipe], IMPLEMENTATIONS[implementation]))
    shardings = laid_out_on(jax.devices())
    sharded = jax.jit(run, in_shardings=shardings, out_shardings=shardings[0])(weights, x)
    for got, wanted in zip(sharded, jax.jit(run)(weights, x), strict=True):
        # Float32 sums over 32 tokens, partly on each device.
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    "target, platform, recipe, implementation",
    [
        ("h100:8", "cuda", "fp8_tensorwise", "cublas"),
        ("v5p:2x2x1", "tpu", "fp8_tensorwise", "emulate"),
        pytest.param("h100:8", "cuda", "fp8_rowwise", "xla", marks=pytest.mark.slow),
        pytest.param("tpu7x:2x2x1", "tpu", "fp8_rowwise", "xla", marks=pytest.mark.slow),
    ],
)
def test_weights_are_gathered_in_eight_bits_and_their_gradients_summed_in_float32(
    target, platform, recipe, implementation
):
    pytest.importorskip("jax_plugins.xla_cuda13" if platform == "cuda" else "libtpu")
    shardings = laid_out_on(target_devices(target))
    shapes = ((1, 1024, 512), (1, 512, 1024)), (8, 256, 512)
    dtypes = (jnp.float32, jnp.float32), jnp.bfloat16
    arguments = jax.tree.map(
        lambda shape, dtype, sharding: jax.ShapeDtypeStruct(shape, dtype, sharding=sharding),
        shapes,
        dtypes,
        shardings,
        is_leaf=lambda leaf: isinstance(leaf, tuple) and isinstance(leaf[0], int),
    )
    matmul = quantized_matmul(RECIPES[recipe], IMPLEMENTATIONS[implementation])
    lowered = jax.jit(gradients(matmul), out_shardings=shardings[0]).trace(*arguments)
    program = lowered.lower(lowering_platforms=(platform,)).compile().as_text()

    def dtypes_of(operation):
        """Of arrays `[512, 512]`: a weight whole along fsdp, split along tensor. A whole stack, or
        one under an asynchronous name."""
        lines = re.findall(rf"= (.*?) {operation}(?:-start)?\(", program)
        return {found for line in lines for found in re.findall(r"(\w+)\[(?:1,)?512,512\]", line)}

    assert dtypes_of("all-gather") == {"f8e4m3fn"}
    assert dtypes_of("(?:all-reduce|reduce-scatter)") <= {"f32"}
