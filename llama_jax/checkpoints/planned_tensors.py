"""What a sink is to write: every tensor of a config, once, in a planned shape and dtype."""

from collections.abc import Mapping

import numpy as np

from llama_jax.checkpoints.dtypes import DTYPES
from llama_jax.checkpoints.interface import TensorSpec
from llama_jax.checkpoints.parameter_names import layer_tensors
from llama_jax.config import ModelConfig
from llama_jax.errors import InputError


class PlannedTensors:
    """Keeps a sink's books.

    Attributes:
      specs: our name -> shape and dtype to be written.

    Raises `InputError` for a dtype that checkpoints do not have.
    """

    def __init__(self, config: ModelConfig, tensors: Mapping[str, TensorSpec]):
        self.specs = dict(tensors)
        if {tensor.name: tensor.shape for tensor in layer_tensors(config)} != {
            name: spec.shape for name, spec in tensors.items()
        }:
            raise ValueError("tensors are not those of config")
        for name, spec in tensors.items():
            if spec.dtype not in DTYPES.values():
                raise InputError(
                    f"cannot store {name} as {spec.dtype}; use --dtype {', '.join(DTYPES)}"
                )
        self._unwritten = set(tensors)

    def strike_off(self, name: str, tensor: np.ndarray) -> None:
        """Notes that `tensor` is written. Raises `ValueError` if it is not as planned."""
        spec = self.specs[name]
        if name not in self._unwritten or (tensor.shape, tensor.dtype) != (spec.shape, spec.dtype):
            raise ValueError(f"{name} was written before, or is not as planned: {spec}")
        self._unwritten.remove(name)

    def check_complete(self) -> None:
        """Raises `ValueError` if a tensor is missing."""
        if self._unwritten:
            raise ValueError(f"not written: {', '.join(sorted(self._unwritten)[:3])} ...")
