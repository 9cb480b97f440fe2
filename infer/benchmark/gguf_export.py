"""A checkpoint as a float GGUF file, so that llama.cpp computes with the very same weights.

Only the benchmark writes this format: names, metadata and the row order of query and key are
llama.cpp's (`parameter_names.py`, `rope_layout.py`), norms are float32 as it demands. The tokenizer
goes along where the source is itself a GGUF file; else the file has none, which is enough for
prompts given as ids.

Reference: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from llama_jax.checkpoints.gguf_config import llama3_divisors
from llama_jax.checkpoints.interface import TensorSource
from llama_jax.checkpoints.parameter_names import LayerTensor, layer_tensors
from llama_jax.checkpoints.rope_layout import interleaved_from_half_split
from llama_jax.config import LinearScaling, Llama3Scaling, ModelConfig
from llama_jax.errors import InputError

_ROPE_DIVISORS = "rope_freqs.weight"


def export_gguf(source: TensorSource, path: Path, *, dtype: str) -> None:
    """Writes the weights of `source` to the file `path` in `dtype`, float32 or bfloat16.

    Raises:
      InputError: quantised weights, or a RoPE scaling that the format cannot say.
    """
    from gguf import GGMLQuantizationType, GGUFWriter

    if any(spec.format is not None for spec in source.tensors.values()):
        raise InputError(f"{source.path}: quantised weights; compare float ones with llama.cpp")
    kinds = {"float32": GGMLQuantizationType.F32, "bfloat16": GGMLQuantizationType.BF16}
    config = source.config
    writer = GGUFWriter(path, "llama")
    _add_config(writer, config)
    _add_tokenizer(writer, source)
    layers = list(layer_tensors(config))
    for layer in layers:
        kind = kinds["float32" if len(layer.shape) == 1 else dtype]
        itemsize = 4 if kind == kinds["float32"] else 2
        size = int(np.prod(layer.foreign_shape)) * itemsize
        shape, number = layer.foreign_shape, np.dtype(np.float16 if itemsize == 2 else np.float32)
        writer.add_tensor_info(layer.foreign_name("gguf"), shape, number, size, raw_dtype=kind)
    if isinstance(config.rope_scaling, Llama3Scaling):
        divisors = llama3_divisors(config.rope_scaling, config.rope_theta, config.head_dim)
        divisors = divisors.astype(np.float32)
        writer.add_tensor_info(_ROPE_DIVISORS, divisors.shape, divisors.dtype, divisors.nbytes)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for layer in layers:
        writer.write_tensor_data(_foreign_tensor(source, layer, dtype))
    if isinstance(config.rope_scaling, Llama3Scaling):
        writer.write_tensor_data(divisors)
    writer.close()


def _foreign_tensor(source: TensorSource, layer: LayerTensor, dtype: str) -> np.ndarray:
    tensor = source.read(layer.name)
    if layer.row.rotated:
        tensor = interleaved_from_half_split(tensor)
    one_dimensional = len(layer.shape) == 1
    number = np.float32 if one_dimensional or dtype == "float32" else ml_dtypes.bfloat16
    return np.ascontiguousarray(tensor.astype(number).reshape(layer.foreign_shape))


def _add_config(writer: Any, config: ModelConfig) -> None:
    writer.add_context_length(config.context_length)
    writer.add_embedding_length(config.model_dim)
    writer.add_block_count(config.num_layers)
    writer.add_feed_forward_length(config.feed_forward_dim)
    writer.add_head_count(config.num_heads)
    writer.add_head_count_kv(config.num_kv_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    writer.add_vocab_size(config.vocab_size)
    match config.rope_scaling:
        case None | Llama3Scaling():  # Llama 3's is the tensor of divisors
            pass
        case LinearScaling(factor):
            from gguf import RopeScalingType

            writer.add_rope_scaling_type(RopeScalingType.LINEAR)
            writer.add_rope_scaling_factor(factor)
        case other:
            raise InputError(
                f"GGUF has no RoPE scaling {type(other).__name__}; leave llama.cpp out"
            )


def _add_tokenizer(writer: Any, source: TensorSource) -> None:
    """The tokenizer's metadata, type by type, where the source is a GGUF file."""
    if source.format != "gguf":
        writer.add_tokenizer_model("no_vocab")
        return
    from gguf import GGUFReader

    for name, field in GGUFReader(source.path).fields.items():
        if name.startswith("tokenizer."):
            sub_type = field.types[-1] if len(field.types) > 1 else None
            writer.add_key_value(name, field.contents(), field.types[0], sub_type)
