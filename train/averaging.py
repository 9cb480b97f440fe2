"""The mean of several checkpoints' parameters: Polyak averaging.

The annealing of Llama 3 ends with it (arXiv 2407.21783, section 3.4.3).

An average is a source of tensors like any checkpoint: each is read from all, added in float64, and
rounded once. So it is streamed a tensor at a time into a folder of any format, or, a device's part
at a time, into arrays with the shardings of the live state.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import jax
import numpy as np
import tyro

from llama_jax.checkpoints.convert import convert
from llama_jax.checkpoints.dequantized import refuse_quantized
from llama_jax.checkpoints.destination import check_apart
from llama_jax.checkpoints.dtypes import DtypeName, cast_tensor, dtype_named
from llama_jax.checkpoints.formats import open_source
from llama_jax.checkpoints.host_only import stay_on_host
from llama_jax.checkpoints.huggingface_repo import resolve_source
from llama_jax.checkpoints.interface import TensorSource, TensorSpec
from llama_jax.checkpoints.load import load_params
from llama_jax.checkpoints.training_layout import step_folder
from llama_jax.config import ModelConfig
from llama_jax.errors import InputError
from llama_jax.model import Params


class AveragedSource:
    """Opened checkpoints of one model as one; see `TensorSource`. Config, tokenizer and order of
    tensors are those of the first.

    Args:
      sources: one or more.
      dtype: of the mean; by default each tensor has that of the first checkpoint.

    Raises `InputError` if they are not of one model.
    """

    format = "average"

    def __init__(self, sources: Sequence[TensorSource], dtype: str | None = None):
        first = sources[0]
        for source in sources:
            refuse_quantized(source, "rounded weights have no mean among the rounded")
        for other in sources[1:]:
            _check_same_model(first, other)
        self._sources = tuple(sources)
        self.path, self.config, self.assets = first.path, first.config, first.assets
        self.tensors = {
            name: TensorSpec(spec.shape, dtype_named(dtype) if dtype else spec.dtype)
            for name, spec in first.tensors.items()
        }

    def read(self, name: str, index: tuple[slice, ...] = ()) -> np.ndarray:
        """The mean of the tensor `name`, or of its part `index`."""
        total = self._sources[0].read(name, index).astype(np.float64)
        for source in self._sources[1:]:
            total += source.read(name, index)
        # By way of float32, as float64 has no direct cast to bfloat16.
        mean = (total / len(self._sources)).astype(np.float32)
        return cast_tensor(mean, self.tensors[name].dtype, name)


def average_params(run_folder: str | Path, steps: Sequence[int], params: Params) -> Params:
    """The mean of the parameters that a run saved at `steps`.

    Args:
      run_folder: the run's folder; the saves must be finished (`Checkpointer.wait`).
      steps: of checkpoints that are there (`Checkpointer.pin` keeps them).
      params: arrays or `ShapeDtypeStruct`s; the result has their dtypes and shardings, and each
        device reads its own part.

    Raises `InputError` if a checkpoint is missing, damaged or of another model.
    """
    sources = [open_source(step_folder(Path(run_folder), step)) for step in steps]
    shardings = jax.tree.map(lambda leaf: leaf.sharding, params)
    mean = load_params(AveragedSource(sources, "float32"), shardings=shardings)
    return jax.tree.map(lambda new, leaf: new.astype(leaf.dtype), mean, params)


def average_command(
    paths: tyro.conf.Positional[Annotated[tuple[str, ...], tyro.conf.arg(metavar="A B ... OUT")]],
    *,
    to: Literal["hf", "meta", "orbax"] = "orbax",
    dtype: DtypeName | None = None,
    verify: bool = True,
    overwrite: bool = False,
    quiet: bool = False,
) -> None:
    """Averages the parameters of several checkpoints of one model, of any formats.

    Tensors are read one at a time and added in float64. Config and tokenizer are those of the
    first checkpoint.

    Example: llama-jax average runs/anneal/checkpoints/000100 runs/anneal/checkpoints/000200 mean

    Args:
      paths: two checkpoints or more, and at the end the folder to be created.
      to: format to write.
      dtype: for every tensor; by default each has that of the first checkpoint.
      verify: read everything back and compare.
      overwrite: replace a checkpoint at the destination, once the new one is whole.
      quiet: print notes and errors only.
    """
    if len(paths) < 3:
        raise InputError("give two checkpoints or more to average, and after them the new folder")
    stay_on_host()
    *names, destination = paths
    sources = [open_source(resolve_source(name)) for name in names]
    for source in sources:
        check_apart(source.path, Path(destination))
    done = convert(
        AveragedSource(sources, dtype),
        destination,
        to=to,
        verify=verify,
        overwrite=overwrite,
        quiet=quiet,
    )
    if not quiet:
        print(f"{destination}: mean of {len(sources)}, {done}{', verified' if verify else ''}")


def _check_same_model(first: TensorSource, other: TensorSource) -> None:
    for field in dataclasses.fields(ModelConfig):
        ours, theirs = getattr(first.config, field.name), getattr(other.config, field.name)
        if ours != theirs:
            raise InputError(
                f"{other.path}: is of another model than {first.path}: {field.name} is {theirs} "
                f"and not {ours}; average checkpoints of one model"
            )
