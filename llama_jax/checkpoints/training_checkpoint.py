"""A checkpoint of a training run, as a source of weights like any other.

`training_layout.py` shows the folder. Only `params` is looked at: the optimiser's state, twice as
large, is not read. Layers are stacked in the file, in chunks of one layer at most, so a layer is
read through tensorstore without its neighbours.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np

from llama_jax.checkpoints.asset_files import read_assets
from llama_jax.checkpoints.dtypes import DTYPES
from llama_jax.checkpoints.interface import Assets, TensorSpec
from llama_jax.checkpoints.ocdbt_files import check_ocdbt_files
from llama_jax.checkpoints.parameter_names import LayerTensor, layer_tensors
from llama_jax.checkpoints.training_layout import (
    CHECKPOINTS_FOLDER,
    DESCRIPTION_ITEM,
    PARAMS,
    STATE_ITEM,
    TEMPORARY_MARK,
    TOKENIZER_FOLDER,
    TRAINING_FILE,
    read_description,
    saved_steps,
    step_folder,
)
from llama_jax.errors import InputError


def is_training_checkpoint(path: Path) -> bool:
    """Whether the folder `path` is a checkpoint of a run, or a run's folder with one."""
    return (path / DESCRIPTION_ITEM / TRAINING_FILE).is_file() or bool(saved_steps(path))


class TrainingSource:
    """See `TensorSource`. Of a run's folder, the latest checkpoint.

    Raises `InputError` if it is unfinished, damaged, or not of a version known here.
    """

    format = "training"

    def __init__(self, path: Path):
        path = Path(os.path.abspath(path))  # tensorstore takes no path with ".." in it
        if not (path / DESCRIPTION_ITEM).is_dir() and (steps := saved_steps(path)):
            path = step_folder(path, steps[-1])
        self.path = path
        if TEMPORARY_MARK in path.name:
            raise InputError(f"{path}: was not saved to its end; give an earlier checkpoint")
        self.config, description = read_description(path)
        self._state = path / STATE_ITEM
        check_ocdbt_files(self._state)
        listed = description.get("leaves")
        leaves = listed if isinstance(listed, dict) else {}
        if any(name.startswith(PARAMS) and name.endswith(".lora_up") for name in leaves):
            raise InputError(
                f"{path}: holds a LoRA change and no weights; give the weights that the run writes "
                "at its end, or its base"
            )
        self._arrays: dict[str, Any] = {}
        self._layers: dict[str, tuple[str, int | None]] = {}
        self.tensors: dict[str, TensorSpec] = {}
        for tensor in layer_tensors(self.config):
            leaf = _leaf_name(tensor)
            self._layers[tensor.name] = (leaf, tensor.layer)
            self.tensors[tensor.name] = TensorSpec(tensor.shape, self._open(tensor, leaf))
        for name in leaves:
            if name.split(".")[0] == PARAMS and name not in self._arrays:
                raise InputError(f"{path}: {name} is not a parameter of its config")
        run_folder = path.parent.parent
        in_run = path.parent.name == CHECKPOINTS_FOLDER
        self.assets = read_assets(run_folder / TOKENIZER_FOLDER) if in_run else Assets()

    def read(self, name: str, index: tuple[slice, ...] = ()) -> np.ndarray:
        """The tensor `name` in our layout, or its part `index`: a new array."""
        leaf, layer = self._layers[name]
        array = self._arrays[leaf]
        if layer is not None:
            array = array[layer]
        try:
            return array[index].read().result() if index else array.read().result()
        except ValueError as error:  # tensorstore's name for whatever it cannot read
            raise InputError(self._damaged(leaf, error)) from error

    def _open(self, tensor: LayerTensor, leaf: str) -> np.dtype:
        """The dtype of the leaf that holds `tensor`; the leaf stays open."""
        import tensorstore

        if leaf not in self._arrays:
            folder = {"driver": "file", "path": f"{self._state.absolute()}/"}
            spec = {
                "driver": "zarr3",
                "kvstore": {"driver": "ocdbt", "base": folder, "path": f"{leaf}/"},
                "fill_missing_data_reads": False,  # else what is lost would be read as zeros
            }
            try:
                self._arrays[leaf] = tensorstore.open(spec, open=True, read=True).result()
            except ValueError as error:
                raise InputError(self._damaged(leaf, error)) from error
        array = self._arrays[leaf]
        layers = () if tensor.layer is None else (self.config.num_layers,)
        dtype = DTYPES.get(array.dtype.name)
        if array.shape != (*layers, *tensor.shape) or dtype is None:
            raise InputError(
                f"{self.path}: {leaf} is {array.dtype.name} {list(array.shape)}, but its config "
                f"makes it {[*layers, *tensor.shape]} of {', '.join(DTYPES)}"
            )
        return dtype

    def _damaged(self, leaf: str, error: Exception) -> str:
        reason = str(error).splitlines()[0]
        return f"{self._state}: {leaf} is damaged ({reason}); take another checkpoint"


def _leaf_name(tensor: LayerTensor) -> str:
    return f"{PARAMS}.{tensor.row.ours.replace('.{}', '')}"
