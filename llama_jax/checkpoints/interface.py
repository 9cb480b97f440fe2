"""What a checkpoint format must offer: a source that reads tensors, a sink that writes them.

Conversion, loading, inspection and comparison are written once, against these two. A tensor's name
and layout are ours (`parameter_names.py`): one tensor per layer, such as `blocks.3.attention.query`
with shape `[N, H, D]`. Each format translates at its own edge.

A quantised weight is two tensors: its values, under the weight's own name, whose spec says the
format, and its scales, under that name with `.scales` behind it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import ml_dtypes
import numpy as np

from llama_jax.config import ModelConfig
from llama_jax.quantization.quantized_tensor import WeightFormat

_INT4 = np.dtype(ml_dtypes.int4)


@dataclass(frozen=True)
class TensorSpec:
    """One tensor in our layout.

    Attributes:
      shape, dtype: of the array that `TensorSource.read` gives.
      format: of a quantised weight's values; None for anything else.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    format: WeightFormat | None = None

    @property
    def num_bytes(self) -> int:
        """Bytes in a file: two int4 of a row share one, which NumPy's arrays do not do."""
        if self.dtype == _INT4:
            return int(np.prod(self.shape[:-1], dtype=np.int64)) * -(-self.shape[-1] // 2)
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


def scales_name(name: str) -> str:
    """The name of the scales of the quantised weight `name`."""
    return f"{name}.scales"


def quantized_names(tensors: Mapping[str, TensorSpec]) -> list[str]:
    """Those of `tensors` that are the values of a quantised weight."""
    return [name for name, spec in tensors.items() if spec.format is not None]


@dataclass(frozen=True)
class Assets:
    """What travels with the weights: files copied verbatim, and the generation defaults.

    Attributes:
      files: path in the checkpoint folder -> the file to copy, or its content.
      generation: fields of a Hugging Face `generation_config.json` (`eos_token_id` and so on).
    """

    files: Mapping[str, Path | bytes] = field(default_factory=dict)
    generation: Mapping[str, Any] = field(default_factory=dict)


class TensorSource(Protocol):
    """A checkpoint opened for reading.

    Opening validates names, shapes and sizes, and raises `InputError` that names the file and what
    to change. It reads no weights but those whose values decide the config (a tied head, say).

    Attributes:
      format: its name on the command line: a key of `formats.SOURCES`.
      path: the folder, or the .gguf file.
      config, assets: the model, and what travels with it.
      tensors: our name -> shape and dtype as stored.
    """

    format: str
    path: Path
    config: ModelConfig
    assets: Assets
    tensors: Mapping[str, TensorSpec]

    def read(self, name: str, index: tuple[slice, ...] = ()) -> np.ndarray:
        """The tensor `name` in our layout, or its part `index`; memory-mapped where it can be."""
        ...


class TensorSink(Protocol):
    """A checkpoint being written into a folder that is not yet in its final place."""

    def write(self, name: str, tensor: np.ndarray) -> None:
        """Stores one whole tensor, given in our layout. Any order, each name once."""
        ...

    def finish(self) -> None:
        """Completes the folder. Raises if a tensor is missing."""
        ...
