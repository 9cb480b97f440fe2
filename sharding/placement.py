"""Where parameters and batches lie on a mesh, and the one way to be on a mesh.

Nothing here is ever whole on one device: parameters are made by a jitted function whose outputs are
already split.
"""

import contextlib
import math
from collections.abc import Iterator

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from llama_jax.config import ModelConfig
from llama_jax.kernels.paged_attention.pages import QUANTIZED_DTYPES, KVPages
from llama_jax.model import Params, init_params, logical_axes
from llama_jax.model.axes import ACTIVATION_KV_HEADS, BATCH, SEQUENCE
from llama_jax.model.kv_cache import KVCache
from llama_jax.quantization.quantized_tensor import INT4_GROUP, QuantizedTensor, WeightFormat
from sharding.divisibility import check_divides
from sharding.rules import SERVING, TRAINING, Rules, mesh_spec


@contextlib.contextmanager
def on_mesh(mesh: Mesh, rules: Rules = TRAINING) -> Iterator[None]:
    """The model's logical axes mean those of `mesh`.

    `jax.set_mesh` and not `with mesh`, under which flax drops its constraints without a word.
    """
    with jax.set_mesh(mesh), nn.logical_axis_rules(list(rules.items())):
        yield


def param_shardings(config: ModelConfig, mesh: Mesh, rules: Rules = TRAINING) -> Params:
    """A tree like `params` of `NamedSharding`s."""
    return jax.tree.map(
        lambda names: NamedSharding(mesh, mesh_spec(tuple(names), rules)),
        logical_axes(config),
        is_leaf=lambda node: isinstance(node, PartitionSpec),
    )


def unstacked_shardings(config: ModelConfig, mesh: Mesh, rules: Rules = SERVING) -> Params:
    """`param_shardings` for params whose `blocks` are a tuple of layers, as inference has them."""
    stacked = param_shardings(config, mesh, rules)
    layer = jax.tree.map(
        lambda sharding: NamedSharding(mesh, PartitionSpec(*sharding.spec[1:])), stacked["blocks"]
    )
    return {**stacked, "blocks": (layer,) * config.num_layers}


def quantized_shardings(params: Params, shardings: Params) -> Params:
    """`shardings` of plain arrays for `params` of which some are quantised.

    Where `params` has a `QuantizedTensor`, so has the result: its values are split as the weight
    would be, and its scales as the output dimensions of the weight. The groups of int4 are split
    with the inputs where every device has whole groups, and lie everywhere where it has not.

    Args:
      params: arrays or `ShapeDtypeStruct`s, stacked or not.
      shardings: the same tree of `NamedSharding`s, one for each weight.
    """

    def derive(leaf, sharding: NamedSharding):
        if not isinstance(leaf, QuantizedTensor):
            return sharding
        has_groups = leaf.format is WeightFormat.INT4
        num_outputs = len(leaf.scales.shape) - has_groups
        spec = (*sharding.spec, *(None,) * (leaf.ndim - len(sharding.spec)))
        of_scales = spec[:num_outputs]
        if has_groups:
            of_scales = (*of_scales, _split_of_groups(leaf.shape, spec, num_outputs, sharding.mesh))
        scales = NamedSharding(sharding.mesh, PartitionSpec(*of_scales))
        return QuantizedTensor(sharding, scales, leaf.format)

    return jax.tree.map(
        derive, params, shardings, is_leaf=lambda node: isinstance(node, QuantizedTensor)
    )


def _split_of_groups(shape: tuple[int, ...], spec: tuple, num_outputs: int, mesh: Mesh):
    """The mesh axes of the groups of an int4 weight: those of its outermost input dimension, if
    what a device has of the flattened inputs is whole groups."""
    axes = spec[num_outputs]
    names = () if axes is None else axes if isinstance(axes, tuple) else (axes,)
    num_parts = math.prod(mesh.shape[name] for name in names)
    num_inputs = math.prod(shape[num_outputs:])
    only_outermost = all(axes is None for axes in spec[num_outputs + 1 :])
    is_whole = num_inputs % (num_parts * INT4_GROUP) == 0
    return axes if only_outermost and is_whole else None


def init_sharded_params(
    config: ModelConfig, key: jax.Array, mesh: Mesh, *, dtype: jnp.dtype = jnp.float32
) -> Params:
    """`init_params`, each device making its own part; the values do not depend on the mesh."""
    init = jax.jit(
        lambda key: init_params(config, key, dtype=dtype),
        out_shardings=param_shardings(config, mesh),
    )
    return init(key)


def cache_shardings(config: ModelConfig, mesh: Mesh, rules: Rules = SERVING) -> KVCache:
    """A `KVCache` of `NamedSharding`s: rows and heads split, slots not. Those of a layer serve the
    scales of a quantised cache too, whose first dimensions are the same."""
    layer = NamedSharding(mesh, mesh_spec((BATCH, ACTIVATION_KV_HEADS), rules))
    layers = (layer,) * config.num_layers
    rows = NamedSharding(mesh, mesh_spec((BATCH,), rules))
    return KVCache(layers, layers, first=rows, length=replicated(mesh))


def page_shardings(
    config: ModelConfig, mesh: Mesh, dtype: jnp.dtype, rules: Rules = SERVING
) -> tuple[KVPages, ...]:
    """`NamedSharding`s of the pages of every layer: heads split, pages not, so that a row may have
    any of them.

    Args:
      dtype: of the pages; int8 and float8_e4m3fn have scales.

    Raises `InputError` if the mesh does not divide the key and value heads.
    """
    spec = mesh_spec((None, None, ACTIVATION_KV_HEADS, None), rules)
    heads = config.num_kv_heads
    check_divides(
        mesh, {"pages": 0, "tokens": 0, "key-value heads": heads, "dims of a head": 0}, spec
    )
    scales = NamedSharding(mesh, mesh_spec((None, ACTIVATION_KV_HEADS, None), rules))
    has_scales = jnp.dtype(dtype) in QUANTIZED_DTYPES
    layer = KVPages(NamedSharding(mesh, spec), scales if has_scales else None)
    return (layer,) * config.num_layers


def batch_sharding(mesh: Mesh, rules: Rules = TRAINING) -> NamedSharding:
    """Of a batch `[A, B, T]`: micro-batches one after another, rows and tokens split."""
    return NamedSharding(mesh, mesh_spec((None, BATCH, SEQUENCE), rules))


def rows_sharding(batch: NamedSharding) -> NamedSharding:
    """Of what a batch has of each row and not of each token, `[A, B, ...]`: its rows split as those
    of `batch`, which is `batch_sharding`."""
    return NamedSharding(batch.mesh, PartitionSpec(*batch.spec[:2]))


def replicated(mesh: Mesh) -> NamedSharding:
    """The same on every device."""
    return NamedSharding(mesh, PartitionSpec())


def lying(shapes, shardings):
    """`ShapeDtypeStruct`s of a tree with the shardings of a tree like it."""
    return jax.tree.map(
        lambda shape, sharding: jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding),
        shapes,
        shardings,
    )
