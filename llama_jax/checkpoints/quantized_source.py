"""A checkpoint as it would be with its weights quantised: what `llama-jax quantize` copies."""

from collections.abc import Mapping

import jax
import numpy as np

from llama_jax.checkpoints.block_calibration import BlockCalibration
from llama_jax.checkpoints.dequantized import refuse_quantized
from llama_jax.checkpoints.dtypes import cast_tensor
from llama_jax.checkpoints.interface import TensorSource, TensorSpec, scales_name
from llama_jax.checkpoints.parameter_names import layer_tensors
from llama_jax.checkpoints.params_tree import names_tree
from llama_jax.config import ModelConfig
from llama_jax.errors import InputError
from llama_jax.model import Params
from llama_jax.quantization.quantize import VALUE_DTYPES, quantize_weight, scales_shape
from llama_jax.quantization.quantized_tensor import QuantizedTensor
from llama_jax.quantization.recipes import Recipe


def quantized_specs(
    config: ModelConfig, recipe: Recipe, dtypes: Mapping[str, np.dtype]
) -> dict[str, TensorSpec]:
    """What a checkpoint of `config` under `recipe` holds, each weight followed by its scales.

    Args:
      dtypes: of the tensors that are not quantised, by name.
    """
    specs: dict[str, TensorSpec] = {}
    for tensor in layer_tensors(config):
        weight_format = recipe.format_of(tensor.name, config.num_layers)
        if weight_format is None:
            specs[tensor.name] = TensorSpec(tensor.shape, dtypes[tensor.name])
            continue
        value_dtype = np.dtype(VALUE_DTYPES[weight_format])
        specs[tensor.name] = TensorSpec(tensor.shape, value_dtype, weight_format)
        shape = scales_shape(tensor.shape, weight_format, tensor.row.contracted)
        specs[scales_name(tensor.name)] = TensorSpec(shape, np.dtype(np.float32))
    return specs


def abstract_unstacked_params(config: ModelConfig, specs: Mapping[str, TensorSpec]) -> Params:
    """`jax.ShapeDtypeStruct`s of what a checkpoint with these tensors holds, blocks unstacked."""
    return jax.tree.map(lambda name: _abstract(name, specs, ()), names_tree(config, stacked=False))


def abstract_stacked_params(config: ModelConfig, specs: Mapping[str, TensorSpec]) -> Params:
    """The same with the layers stacked, of which all are taken to be like the first."""
    layers = (config.num_layers,)
    return jax.tree.map(
        lambda name: _abstract(name.format(0), specs, layers if "{}" in name else ()),
        names_tree(config, stacked=True),
    )


def _abstract(
    name: str, specs: Mapping[str, TensorSpec], layers: tuple[int, ...]
) -> jax.ShapeDtypeStruct | QuantizedTensor:
    spec = specs[name]
    values = jax.ShapeDtypeStruct((*layers, *spec.shape), spec.dtype)
    if spec.format is None:
        return values
    scales = specs[scales_name(name)]
    of_scales = jax.ShapeDtypeStruct((*layers, *scales.shape), scales.dtype)
    return QuantizedTensor(values, of_scales, spec.format)


def abstract_quantized_params(config: ModelConfig, recipe: Recipe, dtype: np.dtype) -> Params:
    """`jax.ShapeDtypeStruct`s of params under `recipe`, blocks unstacked, the rest in `dtype`."""
    dtypes = dict.fromkeys((tensor.name for tensor in layer_tensors(config)), np.dtype(dtype))
    specs = quantized_specs(config, recipe, dtypes)
    return abstract_unstacked_params(config, specs)


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

    Raises `InputError` if the source is quantised already, or the recipe takes none of its weights.
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
        dtypes = {name: dtype or spec.dtype for name, spec in source.tensors.items()}
        self.tensors = quantized_specs(self.config, recipe, dtypes)
        self._weights = {
            tensor.name: tensor
            for tensor in layer_tensors(self.config)
            if self.tensors[tensor.name].format is not None
        }
        if not self._weights:
            raise InputError(
                f"{source.path}: {recipe.name} takes nothing of a model of "
                f"{self.config.num_layers} layers; choose another recipe"
            )
        self._held: dict[str, QuantizedTensor] = {}
        self._calibration = None
        if calibration_tokens is not None:
            self._calibration = BlockCalibration(source, recipe, calibration_tokens)

    def read(self, name: str, index: tuple[slice, ...] = ()) -> np.ndarray:
        """The tensor `name`, values or scales of a quantised weight included, or a part of it."""
        weight = name.removesuffix(scales_name(""))
        if weight not in self._weights:
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
                        contracted=self._weights[name].row.contracted,
                        name=name,
                    )
                }
            else:
                self._held = self._calibration.quantize_block(self._weights[name].layer)
        return self._held[name]


def bytes_by_part(tensors: Mapping[str, TensorSpec]) -> dict[str, int]:
    """Bytes of `tensors`, by the parts of `costs.weight_parts`."""
    parts: dict[str, int] = {}
    for name, spec in tensors.items():
        part = name.split(".")[2] if name.startswith("blocks.") else name.split(".")[0]
        part = "norms" if part.endswith("norm") else part
        parts[part] = parts.get(part, 0) + spec.num_bytes
    return parts
