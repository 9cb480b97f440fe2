"""A checkpoint of any format onto devices: `load_checkpoint`.

Files have a tensor per layer, `params` has the layers stacked. Each leaf is made by
`jax.make_array_from_callback`: every device asks for its part, which is read from the layers it
covers. So a host reads only what its devices hold, and its memory has one leaf's local part at a
time, beside what lies on the devices.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from llama_jax.checkpoints.dtypes import cast_tensor, dtype_named
from llama_jax.checkpoints.formats import open_source
from llama_jax.checkpoints.interface import TensorSource
from llama_jax.checkpoints.params_tree import leaf_paths, names_tree
from llama_jax.config import ModelConfig
from llama_jax.errors import InputError
from llama_jax.model import Params


def load_checkpoint(
    path: str | Path, *, dtype: Any = None, shardings: Params | None = None, stacked: bool = True
) -> tuple[ModelConfig, Params]:
    """The config and the parameters of the checkpoint at `path`, in any format.

    Args:
      path: a checkpoint folder or a .gguf file.
      dtype: float32, bfloat16 or float16 for every parameter; by default as stored (where layers
        differ in that, the dtype that holds them all).
      shardings: a tree like `params` of `jax.sharding.Sharding`; by default the default device.
      stacked: layers stacked, as `llama_jax.forward` wants them; or `blocks` a tuple of per-layer
        dicts, as `llama_jax.forward_cached` does.

    Raises `InputError` that names the file and what to change.
    """
    source = open_source(path)
    return source.config, load_params(source, dtype=dtype, shardings=shardings, stacked=stacked)


def load_params(
    source: TensorSource,
    *,
    dtype: Any = None,
    shardings: Params | None = None,
    stacked: bool = True,
) -> Params:
    """The parameters of an opened checkpoint; see `load_checkpoint`."""
    wanted = None if dtype is None else dtype_named(_dtype_name(dtype))
    names = names_tree(source.config, stacked=stacked)
    if shardings is None:
        shardings = jax.tree.map(lambda name: _default_sharding(), names)
    if wrong := leaf_paths(names) ^ leaf_paths(shardings):
        raise InputError(
            f"{source.path}: shardings do not have the leaves of its params: "
            f"{', '.join(sorted(wrong))}"
        )

    def load(name: str, sharding: jax.sharding.Sharding) -> jax.Array:
        return _load_leaf(source, name, wanted, sharding)

    return jax.tree.map(load, names, shardings)


def _dtype_name(dtype: Any) -> str:
    try:
        return jnp.dtype(dtype).name
    except TypeError:
        return str(dtype)


def _load_leaf(source: TensorSource, ours: str, dtype, sharding) -> jax.Array:
    """One leaf of `params`, stacked if `ours` has a place for the layer."""
    is_stacked = "{}" in ours
    names = [ours.format(i) for i in range(source.config.num_layers)] if is_stacked else [ours]
    specs = [source.tensors[name] for name in names]
    wanted = np.dtype(dtype or jnp.result_type(*(spec.dtype for spec in specs)))
    shape = (len(names), *specs[0].shape) if is_stacked else specs[0].shape

    def read_part(index: tuple[slice, ...]) -> np.ndarray:
        # A fresh array also because JAX on a CPU may keep what it is given as the device's buffer,
        # and a donated buffer must not be somebody's file.
        part = np.empty(
            [len(range(*part.indices(size))) for part, size in zip(index, shape, strict=True)],
            wanted,
        )
        if not is_stacked:
            part[...] = cast_tensor(source.read(ours, index), wanted, ours)
            return part
        for i, layer in enumerate(range(*index[0].indices(len(names)))):
            part[i] = cast_tensor(source.read(names[layer], index[1:]), wanted, names[layer])
        return part

    return jax.make_array_from_callback(shape, sharding, read_part)


def _default_sharding() -> jax.sharding.Sharding:
    return jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
