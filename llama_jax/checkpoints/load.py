"""A checkpoint of any format onto devices: `load_checkpoint`.

Files have a tensor per layer, `params` has the layers stacked. Each leaf is made by
`jax.make_array_from_callback`: every device asks for its part, which is read from the layers it
covers. So a host reads only what its devices hold, and its memory has one leaf's local part at a
time, beside what lies on the devices.

A quantised weight becomes a `QuantizedTensor`, the numbers in it untouched.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from llama_jax.checkpoints.dtypes import cast_tensor, dtype_named
from llama_jax.checkpoints.formats import open_source
from llama_jax.checkpoints.interface import TensorSource, scales_name
from llama_jax.checkpoints.params_tree import leaf_paths, names_tree
from llama_jax.config import ModelConfig
from llama_jax.errors import InputError
from llama_jax.model import Params
from llama_jax.quantization.quantized_tensor import QuantizedTensor, WeightFormat


def load_checkpoint(
    path: str | Path, *, dtype: Any = None, shardings: Params | None = None, stacked: bool = True
) -> tuple[ModelConfig, Params]:
    """The config and the parameters of the checkpoint at `path`, in any format.

    Args:
      path: a checkpoint folder or a .gguf file.
      dtype: float32, bfloat16 or float16 for every parameter that is not quantised; by default as
        stored (where layers differ in that, the dtype that holds them all).
      shardings: a tree like `params` of `jax.sharding.Sharding`, with a `QuantizedTensor` of them
        for a quantised weight (`sharding.placement.quantized_shardings` derives it); by default
        the default device.
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

    def load(name: str, sharding: Any) -> jax.Array | QuantizedTensor:
        weight_format = _format_of(source, name)
        if weight_format is None:
            return _load_leaf(source, name, wanted, sharding)
        of_values = of_scales = sharding
        if isinstance(sharding, QuantizedTensor):
            of_values, of_scales = sharding.values, sharding.scales
        elif not isinstance(sharding, jax.sharding.SingleDeviceSharding):
            raise InputError(
                f"{source.path}: {name} is quantised and its scales need a sharding too; derive it "
                "with sharding.placement.quantized_shardings"
            )
        values = _load_leaf(source, name, None, of_values)
        scales = _load_leaf(source, scales_name(name), None, of_scales)
        return QuantizedTensor(values, scales, weight_format)

    return jax.tree.map(load, names, shardings)


def _format_of(source: TensorSource, name: str) -> WeightFormat | None:
    """The format of a leaf. Raises `InputError` if it is a stack of layers that differ in it."""
    formats = {source.tensors[tensor].format for tensor in _tensors_of(source, name)}
    if len(formats) > 1:
        raise InputError(
            f"{source.path}: {name.replace('.{}', '')} is quantised in some layers and not in "
            "others, so they do not stack; load with stacked=False"
        )
    return formats.pop()


def _tensors_of(source: TensorSource, name: str) -> list[str]:
    """The tensors of a leaf: one for each layer if `name` has a place for it."""
    return [name.format(i) for i in range(source.config.num_layers)] if "{}" in name else [name]


def _dtype_name(dtype: Any) -> str:
    try:
        return jnp.dtype(dtype).name
    except TypeError:
        return str(dtype)


def _load_leaf(source: TensorSource, ours: str, dtype, sharding) -> jax.Array:
    """One leaf of `params`, stacked if `ours` has a place for the layer."""
    is_stacked = "{}" in ours
    names = _tensors_of(source, ours)
    specs = [source.tensors[name] for name in names]
    dtypes = {spec.dtype for spec in specs}
    # Narrow numbers have no common type with others, and need none.
    wanted = np.dtype(dtype or (dtypes.pop() if len(dtypes) == 1 else jnp.result_type(*dtypes)))
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
