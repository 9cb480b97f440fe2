"""Blocks rounded to few bits one after another, with a calibration text in view.

The text runs through the network block by block. Each product of a block leaves the gram matrix of
its inputs (`calibrated_int4.py`); its weight is rounded by it, and the text goes on to the next
block through the rounded weights, whose errors that block then sees. So memory holds a block, its
gram matrices, and the text's hidden states.
"""

import jax
import jax.numpy as jnp
import numpy as np

from llama_jax.checkpoints.interface import TensorSource
from llama_jax.checkpoints.parameter_names import layer_tensors
from llama_jax.checkpoints.params_tree import names_tree
from llama_jax.errors import InputError
from llama_jax.kernels.attention.mask import causal_mask
from llama_jax.kernels.operators import PREFILL, Operators
from llama_jax.model import Params
from llama_jax.model.block import Block
from llama_jax.model.rope import rope_angles
from llama_jax.quantization.calibrated_int4 import quantize_calibrated
from llama_jax.quantization.quantize import quantize_weight
from llama_jax.quantization.quantized_tensor import QuantizedTensor, WeightFormat
from llama_jax.quantization.recipes import PRODUCTS, Recipe

ROW_TOKENS = 512
# In the order in which a block multiplies, the place of each product's inputs among the distinct
# ones: query, key and value share theirs, and so do gate and up.
_INPUTS = dict(zip(PRODUCTS, (0, 0, 0, 1, 2, 2, 3), strict=True))


class BlockCalibration:
    """Quantises the blocks of `source` in order.

    Args:
      source: the checkpoint.
      recipe: the formats.
      tokens: int `[R, T]`, the calibration text.

    Raises `InputError` for tokens that are not the model's.
    """

    def __init__(self, source: TensorSource, recipe: Recipe, tokens: np.ndarray):
        if tokens.size == 0 or not 0 <= tokens.min() <= tokens.max() < source.config.vocab_size:
            raise InputError("calibration: the text has no tokens, or some that the model lacks")
        self._source, self._recipe = source, recipe
        self._contracted = {t.name: t.row.contracted for t in layer_tensors(source.config)}
        self._names = names_tree(source.config, stacked=False)["blocks"]
        embedding = source.read("embedding")
        self._hidden = embedding[tokens].astype(np.float32)
        self._done = 0

        block_steps = _BlockSteps(source.config, tokens.shape[1])
        self._observe, self._apply = jax.jit(block_steps.observe), jax.jit(block_steps.apply)

    def quantize_block(self, layer: int) -> dict[str, QuantizedTensor]:
        """The quantised weights of block `layer` by name. Blocks go in order, each once."""
        if layer != self._done:
            raise ValueError(f"block {layer} asked for where {self._done} comes next")
        self._done += 1
        names = self._names[layer]
        params = jax.tree.map(lambda name: jnp.asarray(self._source.read(name), jnp.float32), names)
        grams = self._grams(params)
        quantized = {}
        for product, place in _INPUTS.items():
            room, part = product.split(".")
            name = names[room][part]
            weight_format = self._recipe.format_of(name, len(self._names))
            if weight_format is None:
                continue
            weight, contracted = self._source.read(name), self._contracted[name]
            if weight_format is WeightFormat.INT4:
                result = quantize_calibrated(weight, grams[place], contracted=contracted, name=name)
            else:
                result = quantize_weight(weight, weight_format, contracted=contracted, name=name)
            quantized[name] = result
            params[room][part] = jax.tree.map(jnp.asarray, result)
        for row, hidden in enumerate(self._hidden):
            self._hidden[row] = self._apply(params, hidden)
        return quantized

    def _grams(self, params: Params) -> list[jax.Array]:
        """Gram matrices of the distinct inputs of the block's products, over all of the text."""
        total: list[jax.Array] = []
        for hidden in self._hidden:
            of_row = self._observe(params, hidden)
            total = [a + b for a, b in zip(total, of_row, strict=True)] if total else of_row
        return total


class _BlockSteps:
    """A block of `config` as functions of one row `[T, D]`."""

    def __init__(self, config, num_tokens: int):
        positions = jnp.arange(num_tokens, dtype=jnp.int32)[None]
        self._config = config
        self._angles, self._mask = rope_angles(positions, config), causal_mask(1, num_tokens)

    def apply(self, params: Params, row: jax.Array) -> jax.Array:
        return self._run(params, row, PREFILL)

    def observe(self, params: Params, row: jax.Array) -> list[jax.Array]:
        """The gram matrices `[in, in]` of the distinct inputs of the block's products."""
        seen: list[jax.Array] = []

        def matmul(x, weight, *, contracted=1):
            if next(places) == len(seen):
                seen.append(x.reshape(x.shape[1], -1))
            return PREFILL.matmul(x, weight, contracted=contracted)

        places = iter(_INPUTS.values())
        self._run(params, row, Operators(attention=PREFILL.attention, matmul=matmul))
        return [x.T @ x for x in seen]

    def _run(self, params: Params, row: jax.Array, operators: Operators) -> jax.Array:
        block = Block(self._config, operators)
        return block.apply({"params": params}, row[None], self._angles, self._mask)[0][0]
