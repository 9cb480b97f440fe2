"""Quantised weights on a mesh: where their parts lie, and that decoding does not notice."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from llama_jax import init_params, load_checkpoint, logits, save_checkpoint
from llama_jax.checkpoints.convert import convert
from llama_jax.checkpoints.formats import open_source
from llama_jax.checkpoints.quantized_source import QuantizedSource, abstract_quantized_params
from llama_jax.config import TINY
from llama_jax.errors import InputError
from llama_jax.model import REFERENCE, forward_cached, init_cache
from llama_jax.quantization.quantized_tensor import QuantizedTensor, WeightFormat
from llama_jax.quantization.recipes import PRODUCTS, RECIPES, Recipe
from sharding.mesh import MeshShape, make_mesh
from sharding.placement import (
    cache_shardings,
    on_mesh,
    quantized_shardings,
    replicated,
    unstacked_shardings,
)
from sharding.rules import SERVING

# Four layers, so that fp8 has some between the edges; 512 inputs of `down` are four groups of int4.
CONFIG = dataclasses.replace(TINY, num_layers=4, feed_forward_dim=512)


@pytest.fixture(scope="module")
def mesh():
    return make_mesh(MeshShape(fsdp=4, tensor=2), jax.devices()[:8])


ALL_INT4 = Recipe("all", dict.fromkeys(PRODUCTS, WeightFormat.INT4))


def _shardings(recipe, mesh):
    recipe = ALL_INT4 if recipe == "all" else RECIPES[recipe]
    params = abstract_quantized_params(CONFIG, recipe, np.dtype(np.float32))
    return params, quantized_shardings(params, unstacked_shardings(CONFIG, mesh))


TENSOR = ("tensor", "context")


def test_scales_follow_the_outputs_of_their_weight(mesh):
    _, shardings = _shardings("int8", mesh)
    attention = shardings["blocks"][1]["attention"]
    assert attention["query"].values.spec == P(TENSOR, None, None)
    assert attention["query"].scales.spec == P(TENSOR, None)
    assert attention["key"].values.spec == P("tensor", None, None)
    # The tensor axis cuts the inputs of these two, of which a row has one scale.
    assert attention["output"].values.spec == P(None, TENSOR, None)
    assert attention["output"].scales.spec == P(None)
    assert shardings["blocks"][1]["feed_forward"]["down"].scales.spec == P(None)
    assert shardings["embedding"].spec == P(TENSOR, None)


def test_groups_are_split_where_every_device_has_whole_ones(mesh):
    _, shardings = _shardings("all", mesh)
    block = shardings["blocks"][0]
    assert block["feed_forward"]["down"].values.spec == P(None, TENSOR)
    assert block["feed_forward"]["down"].scales.spec == P(None, TENSOR)
    # 64 inputs, 32 a device: one group that both need.
    assert block["attention"]["output"].values.spec == P(None, TENSOR, None)
    assert block["attention"]["output"].scales.spec == P(None, None)


def test_fp8_spares_the_edges_and_so_do_its_shardings(mesh):
    params, shardings = _shardings("fp8", mesh)
    for layer, block in enumerate(shardings["blocks"]):
        is_quantized = isinstance(block["feed_forward"]["gate"], QuantizedTensor)
        assert is_quantized == (layer in (1, 2))
    assert jax.tree.structure(params) == jax.tree.structure(shardings)


# Between them they have every format.
@pytest.mark.parametrize("recipe", ["fp8", "int8_int4"])
def test_decoding_on_a_mesh_equals_one_device(recipe, mesh, tmp_path, quick_compilation):
    params = init_params(CONFIG, jax.random.key(0))
    save_checkpoint(tmp_path / "plain", CONFIG, params, format="orbax")
    quantized = QuantizedSource(open_source(tmp_path / "plain"), RECIPES[recipe])
    convert(quantized, tmp_path / "q", to="orbax", quiet=True, say=lambda line: None)
    tokens = jnp.arange(12, dtype=jnp.int32).reshape(4, 3)

    @jax.jit
    def scores(params, tokens, cache):
        hidden, _ = forward_cached(params, tokens, cache, config=CONFIG, operators=REFERENCE)
        return logits(params, hidden, config=CONFIG)

    cache = init_cache(CONFIG, 4, 8, jnp.float32)
    _, whole = load_checkpoint(tmp_path / "q", stacked=False)
    expected = scores(whole, tokens, cache)

    _, shardings = _shardings(recipe, mesh)
    _, split = load_checkpoint(tmp_path / "q", stacked=False, shardings=shardings)
    for leaf, sharding in zip(jax.tree.leaves(split), jax.tree.leaves(shardings), strict=True):
        assert leaf.sharding == sharding
    with on_mesh(mesh, SERVING):
        cache = jax.device_put(cache, cache_shardings(CONFIG, mesh))
        found = scores(split, jax.device_put(tokens, replicated(mesh)), cache)
    # The order of float32 sums differs; int4 and fp8 round activations or weights alike.
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_shardings_of_plain_arrays_do_not_do_for_quantised_weights(mesh, tmp_path):
    save_checkpoint(
        tmp_path / "plain", CONFIG, init_params(CONFIG, jax.random.key(0)), format="orbax"
    )
    quantized = QuantizedSource(open_source(tmp_path / "plain"), RECIPES["int8"])
    convert(quantized, tmp_path / "q", to="orbax", quiet=True, say=lambda line: None)
    with pytest.raises(InputError, match="quantized_shardings"):
        load_checkpoint(tmp_path / "q", stacked=False, shardings=unstacked_shardings(CONFIG, mesh))
