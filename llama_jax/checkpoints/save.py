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
from llama_jax.checkpoints.interface import Assets, TensorSpec
from llama_jax.checkpoints.parameter_names import LayerTensor, layer_tensors
from llama_jax.checkpoints.params_tree import leaf_paths, names_tree
from llama_jax.checkpoints.staging import staged_folder
from llama_jax.config import ModelConfig
from llama_jax.errors import InputError
from llama_jax.model import Params


def save_checkpoint(
    path: str | Path,
    config: ModelConfig,
    params: Params,
    *,
    format: str,
    assets: Assets | None = None,
) -> None:
    """Writes `params` to the new folder `path`, in the dtype that each leaf has.

    Args:
      path: must not exist; it appears when it is whole.
      config: the model of `params`.
      params: as from `load_checkpoint` or `init_params`, layers stacked; may be sharded over the
        devices of this process.
      format: `orbax`, `hf` or `meta`.
      assets: tokenizer files and generation defaults to put beside; `open_source` gives a
        checkpoint's own.

    Raises `InputError` if `path` is taken or `params` are not those of `config`.
    """
    paths = leaf_paths(params)
    expected = leaf_paths(names_tree(config, stacked=True))
    for name in sorted(expected - paths):
        raise InputError(f"params: {name} is missing; the config asks for it")
    for name in sorted(paths - expected):
        raise InputError(f"params: {name} is not part of the model of the config; leave it out")
    tensors = list(layer_tensors(config))
    leaves = {tensor.name: _leaf(params, tensor) for tensor in tensors}
    for tensor in tensors:
        shape = tensor.shape if tensor.layer is None else (config.num_layers, *tensor.shape)
        leaf = leaves[tensor.name]
        if leaf.shape != shape:
            raise InputError(
                f"params: {tensor.name} is of shape {leaf.shape}; the config makes it {shape}"
            )
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            raise InputError(
                f"params: {tensor.name} lies partly on devices of other processes, which "
                "save_checkpoint cannot fetch; gather it first"
            )
    specs = {
        tensor.name: TensorSpec(tensor.shape, np.dtype(leaves[tensor.name].dtype))
        for tensor in tensors
    }
    total = sum(spec.num_bytes for spec in specs.values())
    options = sink_options(format, config, specs, None)
    with staged_folder(Path(path), num_bytes=total) as folder:
        sink = sink_class(format)(folder, config, specs, assets or Assets(), **options)
        for tensor in tensors:
            sink.write(tensor.name, _fetch(leaves[tensor.name], tensor.layer))
        sink.finish()


def _leaf(params: Params, tensor: LayerTensor) -> Any:
    node: Any = params
    for part in tensor.row.ours.replace(".{}", "").split("."):
        node = node[part]
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
