"""Parameters from devices into a checkpoint folder of any format: `save_checkpoint`.

Layer by layer: a tensor is fetched from its devices, written, and forgotten, so the host's memory
does not grow with the model.
"""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from llama_jax.checkpoints.convert import sink_options
from llama_jax.checkpoints.formats import sink_class
from llama_jax.checkpoints.interface import Assets, TensorSpec, scales_name
from llama_jax.checkpoints.parameter_names import LayerTensor, layer_tensors
from llama_jax.checkpoints.params_tree import leaf_paths, names_tree
from llama_jax.checkpoints.staging import staged_folder
from llama_jax.config import ModelConfig
from llama_jax.errors import InputError
from llama_jax.model import Params
from llama_jax.quantization.quantize import scales_shape
from llama_jax.quantization.quantized_tensor import QuantizedTensor


def save_checkpoint(
    path: str | Path,
    config: ModelConfig,
    params: Params,
    *,
    format: str,
    assets: Assets | None = None,
) -> None:
    """Writes `params` to the new folder `path`, in the dtype or format that each leaf has.

    Args:
      path: must not exist; it appears when it is whole.
      config: the model of `params`.
      params: as from `load_checkpoint` or `init_params`; may be sharded over the devices of this
        process.
      format: `orbax`, `hf` or `meta`.
      assets: tokenizer files and generation defaults to put beside; `open_source` gives a
        checkpoint's own.

    Raises `InputError` if `path` is taken or `params` are not those of `config`.
    """
    stacked = not isinstance(params.get("blocks"), tuple)
    paths = leaf_paths(params)
    expected = leaf_paths(names_tree(config, stacked=stacked))
    for name in sorted(expected - paths):
        raise InputError(f"params: {name} is missing; the config asks for it")
    for name in sorted(paths - expected):
        raise InputError(f"params: {name} is not part of the model of the config; leave it out")
    specs: dict[str, TensorSpec] = {}
    arrays: dict[str, tuple[jax.Array | np.ndarray, int | None]] = {}
    for tensor in layer_tensors(config):
        leaf = _leaf(params, tensor, stacked)
        layer = tensor.layer if stacked else None
        weight_format = leaf.format if isinstance(leaf, QuantizedTensor) else None
        values = leaf if weight_format is None else leaf.values
        _check(tensor.name, values, tensor.shape, layer, config)
        arrays[tensor.name] = values, layer
        specs[tensor.name] = TensorSpec(tensor.shape, np.dtype(values.dtype), weight_format)
        if weight_format is not None:
            name = scales_name(tensor.name)
            shape = scales_shape(tensor.shape, weight_format, tensor.row.contracted)
            _check(name, leaf.scales, shape, layer, config)
            arrays[name] = leaf.scales, layer
            specs[name] = TensorSpec(shape, np.dtype(leaf.scales.dtype))
    total = sum(spec.num_bytes for spec in specs.values())
    options = sink_options(format, config, specs, None)
    with staged_folder(Path(path), num_bytes=total) as folder:
        sink = sink_class(format)(folder, config, specs, assets or Assets(), **options)
        for name, (array, layer) in arrays.items():
            sink.write(name, _fetch(array, layer))
        sink.finish()


def _check(name: str, array: Any, shape: tuple[int, ...], layer: int | None, config) -> None:
    """Raises `InputError` unless `array` is what the config makes of `name`, and is at hand."""
    expected = shape if layer is None else (config.num_layers, *shape)
    if array.shape != expected:
        raise InputError(
            f"params: {name} is of shape {array.shape}; the config makes it {expected}"
        )
    if isinstance(array, jax.Array) and not array.is_fully_addressable:
        raise InputError(
            f"params: {name} lies partly on devices of other processes, which save_checkpoint "
            "cannot fetch; gather it first"
        )


def _leaf(params: Params, tensor: LayerTensor, stacked: bool) -> Any:
    """The leaf of a tensor; of a stack, that of all its layers."""
    node: Any = params
    name = tensor.row.ours.replace(".{}", "") if stacked else tensor.name
    for part in name.split("."):
        node = node[int(part)] if part.isdigit() else node[part]
    return node


def _fetch(leaf: jax.Array | np.ndarray, layer: int | None) -> np.ndarray:
    """One tensor on the host, put together from its shards. The shards are indexed one by one, as
    indexing the whole would ask how the result is to be sharded."""
    if not isinstance(leaf, jax.Array):
        return leaf if layer is None else leaf[layer]
    if layer is None:
        return np.asarray(leaf)
    tensor = np.empty(leaf.shape[1:], leaf.dtype)
    for shard in leaf.addressable_shards:
        start, stop, _ = shard.index[0].indices(leaf.shape[0])
        if shard.replica_id == 0 and start <= layer < stop:
            tensor[shard.index[1:]] = np.asarray(shard.data[layer - start])
    return tensor
