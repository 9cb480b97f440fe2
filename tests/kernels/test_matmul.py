"""Matrix products in plain jnp: two layouts give the same numbers, and so do their gradients."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from llama_jax.kernels.matmul import flattened, reference

# Compiling is nearly all of the time of these tests.
pytestmark = pytest.mark.usefixtures("quick_compilation")

both = pytest.mark.parametrize("matmul", [reference.matmul, flattened.matmul])


@both
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_equals_numpy(matmul, dtype):
    x = jax.random.normal(jax.random.key(0), (2, 3, 4, 5)).astype(dtype)
    weight = jax.random.normal(jax.random.key(1), (7, 4, 5)).astype(dtype)
    for contracted, equation, w in ((1, "btni,oi->btno", weight[0]), (2, "btni,oni->bto", weight)):
        result = matmul(x, w, contracted=contracted)
        expected = np.einsum(equation, np.float64(x), np.float64(w))
        assert result.dtype == dtype
        # Accumulated in float32, rounded once to the dtype: half a unit in the last place.
        tolerance = 1e-6 if dtype == jnp.float32 else 2**-8
        np.testing.assert_allclose(np.float64(result), expected, rtol=tolerance, atol=1e-6)


# Name, contracted dimensions, shapes, product, gradient of x, gradient of the weight.
LAYERS = [
    ("query", 1, (2, 3, 5), (4, 6, 5), "bti,nhi->btnh", "btnh,nhi->bti", "btnh,bti->nhi"),
    ("output", 2, (2, 3, 4, 6), (5, 4, 6), "btnh,onh->bto", "bto,onh->btnh", "bto,btnh->onh"),
    ("one_row", 1, (5,), (7, 5), "i,oi->o", "o,oi->i", "o,i->oi"),
]


@both
@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer[0])
@pytest.mark.parametrize("weight_dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_gradients_equal_numpy_in_any_dtypes(matmul, layer, weight_dtype, dtype):
    _, contracted, x_shape, weight_shape, product, of_x, of_weight = layer
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], x_shape).astype(dtype)
    weight = jax.random.normal(keys[1], weight_shape).astype(weight_dtype)
    result, pull_back = jax.vjp(lambda x, w: matmul(x, w, contracted=contracted), x, weight)
    outer = jax.random.normal(keys[2], result.shape).astype(dtype)
    x_gradient, weight_gradient = pull_back(outer)

    assert result.dtype == x_gradient.dtype == dtype and weight_gradient.dtype == weight_dtype
    x, weight, outer = np.float64(x), np.float64(weight.astype(dtype)), np.float64(outer)
    for got, expected in (
        (result, np.einsum(product, x, weight)),
        (x_gradient, np.einsum(of_x, outer, weight)),
        (weight_gradient, np.einsum(of_weight, outer, x)),
    ):
        # Sums of at most 24 products in float32, rounded once to the dtype of the result: a
        # float32 gradient of bfloat16 numbers has float32's error and not bfloat16's.
        tolerance = 1e-6 if got.dtype == jnp.float32 else 2**-8
        np.testing.assert_allclose(np.float64(got), expected, rtol=tolerance, atol=2e-6)


def test_a_wider_weight_is_multiplied_as_if_it_had_been_cast():
    x = jax.random.normal(jax.random.key(0), (4, 32)).astype(jnp.bfloat16)
    weight = jax.random.normal(jax.random.key(1), (8, 32))
    expected = reference.matmul(x, weight.astype(jnp.bfloat16))
    np.testing.assert_array_equal(reference.matmul(x, weight), expected)


@both
def test_gradients_pass_through_vmap_scan_and_checkpoint(matmul):
    x = jax.random.normal(jax.random.key(0), (4, 3, 8))
    weights = jax.random.normal(jax.random.key(1), (5, 8, 8)) / 3

    def through(product):
        def loss(x, weights):
            def layer(x, weight):
                return x + jax.nn.silu(jax.vmap(product, in_axes=(0, None))(x, weight)), None

            return jnp.sum(jax.lax.scan(jax.checkpoint(layer), x, weights)[0] ** 2)

        return jax.jit(jax.grad(loss, argnums=(0, 1)))(x, weights)

    plain = through(lambda x, weight: x @ weight.T)
    for result, expected in zip(through(matmul), plain, strict=True):
        # The same float32 sums in other orders, through five layers.
        np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-4)


def feed_forward_gradients(weights, x):
    """Of two stacked layers of a feed-forward network without a gate, as training runs them."""

    def loss(weights, x):
        def layer(x, weights):
            up, down = weights
            return x + reference.matmul(jax.nn.silu(reference.matmul(x, up)), down), None

        x, _ = jax.lax.scan(jax.checkpoint(layer), x, weights)
        return jnp.sum(x.astype(jnp.float32) ** 2)

    return jax.grad(loss)(weights, x)


def laid_out_on(devices):
    mesh = Mesh(np.array(devices).reshape(4, 2), ("fsdp", "tensor"))
    specs = (P(None, "tensor", "fsdp"), P(None, "fsdp", "tensor")), P("fsdp")
    return jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs)


def test_gradients_with_weights_sharded_over_two_axes():
    keys = jax.random.split(jax.random.key(0), 3)
    weights = tuple(
        jax.random.normal(key, shape) / 4
        for key, shape in zip(keys, ((2, 32, 16), (2, 16, 32)), strict=False)
    )
    x = jax.random.normal(keys[2], (8, 4, 16))
    shardings = laid_out_on(jax.devices())
    run = jax.jit(feed_forward_gradients, in_shardings=shardings, out_shardings=shardings[0])
    expected = jax.jit(feed_forward_gradients)(weights, x)
    for result, wanted in zip(run(weights, x), expected, strict=True):
        # Float32 sums over 32 tokens, partly on each device.
        np.testing.assert_allclose(result, wanted, rtol=1e-4, atol=1e-3)


def test_a_mesh_gathers_weights_in_bfloat16_and_sums_their_gradients_in_float32():
    # XLA for CPUs has no bfloat16 product and gathers what it has cast back, so ask that for TPUs.
    pytest.importorskip("libtpu")
    devices = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x4").devices
    shardings = laid_out_on(devices)
    shapes = ((2, 1024, 512), (2, 512, 1024)), (8, 256, 512)
    dtypes = (jnp.float32, jnp.float32), jnp.bfloat16
    arguments = jax.tree.map(
        lambda shape, dtype, sharding: jax.ShapeDtypeStruct(shape, dtype, sharding=sharding),
        shapes,
        dtypes,
        shardings,
        is_leaf=lambda leaf: isinstance(leaf, tuple) and isinstance(leaf[0], int),
    )
    run = jax.jit(feed_forward_gradients, out_shardings=shardings[0])
    program = run.lower(*arguments).compile().as_text()

    def dtypes_of(operation):
        """Of the arrays `[512, 512]`: a weight whole along fsdp, split along tensor."""
        lines = re.findall(rf"= (.*) {operation}\(", program)
        return {found for line in lines for found in re.findall(r"(\w+)\[(?:1,)?512,512\]", line)}

    assert dtypes_of("all-gather") == {"bf16"}
    assert dtypes_of("(?:all-reduce|reduce-scatter)") == {"f32"}
