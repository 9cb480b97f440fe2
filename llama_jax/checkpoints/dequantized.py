"""A checkpoint with quantised weights as one of plain arrays, for formats that know no others."""

import jax.numpy as jnp
import numpy as np

from llama_jax.checkpoints.interface import TensorSource, TensorSpec, scales_name
from llama_jax.checkpoints.parameter_names import layer_tensors
from llama_jax.errors import InputError
from llama_jax.quantization.quantized_tensor import QuantizedTensor


class DequantizedSource:
    """`source` with its quantised weights multiplied out in float32; see `TensorSource`.

    What it gives is rounded to `dtype` once. Memory holds one weight at a time, in float32 too.
    """

    def __init__(self, source: TensorSource, dtype: np.dtype):
        self._source, self._dtype = source, dtype
        self.format, self.path = source.format, source.path
        self.config, self.assets = source.config, source.assets
        self._contracted = {t.name: t.row.contracted for t in layer_tensors(source.config)}
        self.tensors = {
            name: spec if source.tensors[name].format is None else TensorSpec(spec.shape, dtype)
            for name, spec in source.tensors.items()
            if name in self._contracted
        }

    def read(self, name: str, index: tuple[slice, ...] = ()) -> np.ndarray:
        """The tensor `name`, or its part `index`."""
        weight_format = self._source.tensors[name].format
        if weight_format is None:
            return self._source.read(name, index)
        shape = self.tensors[name].shape
        index = (*index, *(slice(None) for _ in shape[len(index) :]))
        # A scale may belong to a part of the inputs, so those are read whole and cut afterwards.
        num_outputs = len(shape) - self._contracted[name]
        outputs, inputs = index[:num_outputs], index[num_outputs:]
        values = self._source.read(name, outputs)
        scales = self._source.read(scales_name(name), outputs)
        weight = QuantizedTensor(jnp.asarray(values), jnp.asarray(scales), weight_format)
        return np.asarray(weight.dequantize(self._dtype))[(Ellipsis, *inputs)]


def refuse_quantized(source: TensorSource, what: str) -> None:
    """Raises `InputError` if `source` has quantised weights, of which `what` can make nothing."""
    for name, spec in source.tensors.items():
        if spec.format is not None:
            raise InputError(
                f"{source.path}: {name} is quantised ({spec.format}), and {what}; multiply it out "
                f"first: llama-jax convert {source.path} NEW --to orbax --dtype bfloat16"
            )
