"""A checkpoint as it would be with its weights quantised: what `llama-jax quantize` copies."""

from collections.abc import Mapping

import numpy as np

from llama_jax.checkpoints.block_calibration import BlockCalibration
from llama_jax.checkpoints.dequantized import refuse_quantized
from llama_jax.checkpoints.dtypes import cast_tensor
from llama_jax.checkpoints.interface import TensorSource, TensorSpec, scales_name
from llama_jax.checkpoints.parameter_names import layer_tensors
from llama_jax.quantization.quantize import VALUE_DTYPES, quantize_weight, scales_shape
from llama_jax.quantization.quantized_tensor import QuantizedTensor
from llama_jax.quantization.recipes import Recipe


class QuantizedSource:
    """`source` with `recipe` applied as its tensors are read; see `TensorSource`.

    A tensor is quantised when it is asked for, and kept until its scales have been, so that memory
    holds one; with calibration, the tensors of one block.

    Args:
      source: the checkpoint.
      recipe: the formats.
      dtype: of what is not quantised; None keeps the source's.
      calibration_tokens: int `[R, T]`, a text by which int4 is rounded (`block_calibration.py`);
        then the blocks must be read in order. None rounds each weight for itself.

    Raises `InputError` if the source is quantised already.
    """

    def __init__(
        self,
        source: TensorSource,
        recipe: Recipe,
        *,
        dtype: np.dtype | None = None,
        calibration_tokens: np.ndarray | None = None,
    ):
        refuse_quantized(source, "quantising that again would lose more than it says")
        self._source, self.format, self.path = source, source.format, source.path
        self.config, self.assets = source.config, source.assets
        self.tensors: dict[str, TensorSpec] = {}
        self._contracted = {}
        self._layers: dict[str, int] = {}
        for tensor in layer_tensors(self.config):
            name, contracted = tensor.name, tensor.row.contracted
            weight_format = recipe.format_of(name, self.config.num_layers)
            if weight_format is None:
                stored = source.tensors[name]
                self.tensors[name] = TensorSpec(tensor.shape, dtype or stored.dtype)
                continue
            value_dtype = np.dtype(VALUE_DTYPES[weight_format])
            self.tensors[name] = TensorSpec(tensor.shape, value_dtype, weight_format)
            shape = scales_shape(tensor.shape, weight_format, contracted)
            self.tensors[scales_name(name)] = TensorSpec(shape, np.dtype(np.float32))
            self._contracted[name] = contracted
            self._layers[name] = tensor.layer
        self._held: dict[str, QuantizedTensor] = {}
        self._calibration = None
        if calibration_tokens is not None:
            self._calibration = BlockCalibration(source, recipe, calibration_tokens)

    def read(self, name: str, index: tuple[slice, ...] = ()) -> np.ndarray:
        """The tensor `name`, values or scales of a quantised weight included, or a part of it."""
        weight = name.removesuffix(scales_name(""))
        if weight not in self._contracted:
            return cast_tensor(self._source.read(name, index), self.tensors[name].dtype, name)
        quantized = self._quantized(weight)
        return (quantized.values if name == weight else quantized.scales)[index]

    def _quantized(self, name: str) -> QuantizedTensor:
        if name not in self._held:
            if self._calibration is None:
                self._held = {
                    name: quantize_weight(
                        self._source.read(name),
                        self.tensors[name].format,
                        contracted=self._contracted[name],
                        name=name,
                    )
                }
            else:
                self._held = self._calibration.quantize_block(self._layers[name])
        return self._held[name]


def bytes_by_part(tensors: Mapping[str, TensorSpec]) -> dict[str, int]:
    """Bytes of `tensors`, by the parts of `costs.weight_parts`."""
    parts: dict[str, int] = {}
    for name, spec in tensors.items():
        part = name.split(".")[2] if name.startswith("blocks.") else name.split(".")[0]
        part = "norms" if part.endswith("norm") else part
        parts[part] = parts.get(part, 0) + spec.num_bytes
    return parts
