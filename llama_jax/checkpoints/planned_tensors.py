"""What a sink is to write: every tensor of a config, once, in a planned shape and dtype."""

from collections.abc import Collection, Mapping

import numpy as np

from llama_jax.checkpoints.dtypes import DTYPES
from llama_jax.checkpoints.interface import TensorSpec, scales_name
from llama_jax.checkpoints.parameter_names import layer_tensors
from llama_jax.config import ModelConfig
from llama_jax.errors import InputError
from llama_jax.quantization.quantize import VALUE_DTYPES, scales_shape
from llama_jax.quantization.quantized_tensor import WeightFormat


class PlannedTensors:
    """Keeps a sink's books.

    Args:
      config: the model.
      tensors: our name -> what is to be written, with the scales of quantised weights.
      formats: the formats of quantised weights that the sink can write.

    Attributes:
      specs: `tensors`.

    Raises `InputError` for a dtype or a format of weights that the sink does not have.
    """

    def __init__(
        self,
        config: ModelConfig,
        tensors: Mapping[str, TensorSpec],
        formats: Collection[WeightFormat] = (),
    ):
        self.specs = dict(tensors)
        for name, spec in tensors.items():
            if spec.format is not None and spec.format not in formats:
                raise InputError(
                    f"cannot store {name} as {spec.format} there; keep quantised weights with "
                    "--to orbax, or multiply them out with --dtype bfloat16"
                )
        if _expected_shapes(config, tensors) != {
            name: spec.shape for name, spec in tensors.items()
        }:
            raise ValueError("tensors are not those of config")
        for name, spec in tensors.items():
            if spec.format is not None:
                if spec.dtype != VALUE_DTYPES[spec.format]:
                    raise ValueError(f"{name}: {spec.dtype} is not what {spec.format} is made of")
                if tensors[scales_name(name)].dtype != np.float32:
                    raise ValueError(f"{name}: its scales must be float32")
            elif spec.dtype not in DTYPES.values():
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


def _expected_shapes(
    config: ModelConfig, tensors: Mapping[str, TensorSpec]
) -> dict[str, tuple[int, ...]]:
    """Every tensor of `config`, and the scales of those that `tensors` give a format."""
    shapes = {}
    for tensor in layer_tensors(config):
        shapes[tensor.name] = tensor.shape
        spec = tensors.get(tensor.name)
        if spec is not None and spec.format is not None:
            shapes[scales_name(tensor.name)] = scales_shape(
                tensor.shape, spec.format, tensor.row.contracted
            )
    return shapes
