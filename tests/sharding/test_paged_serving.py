"""A cache in pages on a mesh: where its parts lie, and that nothing that is computed notices."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from llama_jax import init_params, unstack_blocks
from llama_jax.config import LLAMA_31_405B, TINY
from llama_jax.errors import InputError
from llama_jax.kernels.select import inference_operators
from llama_jax.model import RowPages, forward_paged, init_page_pool
from sharding.mesh import MeshShape, make_mesh
from sharding.placement import on_mesh, page_shardings, unstacked_shardings
from sharding.rules import SERVING
from sharding.serving_mesh import serving_mesh_shape
from sharding.sharded_operators import shard_paged_operators

CONFIG = dataclasses.replace(TINY, num_heads=8, num_kv_heads=2)
PAGE_SIZE, NUM_PAGES = 4, 20
pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(scope="module")
def mesh():
    """Rows on two pairs of pairs of devices; each of two key heads on two devices."""
    return make_mesh(MeshShape(fsdp=2, tensor=2, context=2), jax.devices()[:8])


def steps(params, pages, *, mesh=None):
    """Hidden states of a prompt of five tokens a row and of the next one, and the pages."""
    _, operators = inference_operators("cpu", "cpu")
    if mesh is not None:
        operators = shard_paged_operators(operators, mesh)
    table = np.random.default_rng(0).permutation(NUM_PAGES)[:8].reshape(4, 2).astype(np.int32)
    tokens = np.arange(24, dtype=np.int32).reshape(4, 6)

    @jax.jit
    def run(params, pages, table, tokens):
        lengths = jnp.array([5, 3, 5, 0], jnp.int32)  # of the second, two are padding
        rows = RowPages(table, lengths, jnp.zeros_like(lengths))
        options = dict(config=CONFIG, operators=operators)
        first, pages = forward_paged(params, tokens[:, :5], pages, rows, **options)
        rows = rows._replace(lengths=jnp.where(lengths > 0, lengths + 1, 0))
        second, pages = forward_paged(params, tokens[:, 5:], pages, rows, **options)
        return first, second, pages

    return run(params, pages, table, tokens)


# Sums of float32 in another order; int8 pages round them, now and then the other way: one step of
# 127 of a key or value, of which there are a few.
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(jnp.float32, 2e-5), (jnp.int8, 0.02)], ids=["float32", "int8"]
)
def test_a_mesh_computes_what_one_device_does(mesh, dtype, tolerance):
    params = unstack_blocks(init_params(CONFIG, jax.random.key(0)))
    pages = init_page_pool(CONFIG, NUM_PAGES, PAGE_SIZE, dtype)
    expected = steps(params, pages)
    with on_mesh(mesh, SERVING):
        split = jax.device_put(params, unstacked_shardings(CONFIG, mesh))
        shardings = page_shardings(CONFIG, mesh, dtype)
        found = steps(split, jax.device_put(pages, shardings), mesh=mesh)
    for ours, theirs in zip(found[:2], expected[:2], strict=True):
        valid = np.array([1, 0, 1, 0], bool)  # hidden states of padding mean nothing
        np.testing.assert_allclose(ours[valid], theirs[valid], atol=tolerance)
        np.testing.assert_allclose(ours[1, -3:], theirs[1, -3:], atol=tolerance)
    if dtype == jnp.float32:
        for ours, theirs in zip(found[2], expected[2], strict=True):
            np.testing.assert_allclose(ours.pages, theirs.pages, atol=tolerance)


def test_heads_of_pages_are_split_and_rows_may_have_any_page(mesh):
    layer = page_shardings(CONFIG, mesh, jnp.int8)[0]
    assert layer.pages.spec == P(None, None, "tensor", None)
    assert layer.scales.spec == P(None, "tensor", None)
    assert page_shardings(CONFIG, mesh, jnp.bfloat16)[0].scales is None


def test_more_devices_than_key_heads_copy_each_head():
    assert serving_mesh_shape(LLAMA_31_405B, 8) == MeshShape(fsdp=1, tensor=8)
    assert serving_mesh_shape(LLAMA_31_405B, 16) == MeshShape(fsdp=1, tensor=8, context=2)
    assert serving_mesh_shape(LLAMA_31_405B, 4) == MeshShape(fsdp=1, tensor=4)
    shape = serving_mesh_shape(CONFIG, 8)
    mesh = make_mesh(shape, jax.devices()[:8])
    pages = jax.device_put(
        init_page_pool(CONFIG, 2, PAGE_SIZE, jnp.float32)[0],
        page_shardings(CONFIG, mesh, jnp.float32)[0],
    )
    held = [shard.index[2].start for shard in pages.pages.addressable_shards]
    assert sorted(held) == [0] * 4 + [2] * 4  # key and value of one head each


def test_what_does_not_divide_is_refused_with_the_numbers(mesh):
    with pytest.raises(InputError, match="128 query heads do not divide among 24 devices"):
        serving_mesh_shape(LLAMA_31_405B, 24)
    odd = dataclasses.replace(CONFIG, num_heads=9, num_kv_heads=3)
    with pytest.raises(InputError, match="3 key-value heads do not divide.*tensor 2"):
        page_shardings(odd, mesh, jnp.float32)
    operators = shard_paged_operators(inference_operators("cpu", "cpu")[1], mesh)
    pages = init_page_pool(CONFIG, 2, PAGE_SIZE, jnp.float32)[0]
    query = jnp.zeros((3, CONFIG.num_heads, 1, CONFIG.head_dim))
    with pytest.raises(InputError, match="3 rows do not divide"):
        operators.paged_attention(
            query, pages, jnp.zeros((3, 1), jnp.int32), jnp.ones(3, jnp.int32), scale=1.0
        )
