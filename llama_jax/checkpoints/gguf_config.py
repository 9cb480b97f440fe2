"""GGUF metadata -> `ModelConfig`.

Keys are those of llama.cpp's `llama` architecture (`gguf.constants.Keys`). Files of Llama 3.1 and
later do not name their RoPE scaling: llama.cpp's converter stores the number that each frequency is
divided by as a tensor, `rope_freqs.weight` `[H / 2]`. We accept it if it is what Meta's formula
gives, for some `factor`, with the constants that every published model has.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from llama_jax.checkpoints.typed_fields import TypedFields, make_from_file
from llama_jax.config import LinearScaling, Llama3Scaling, ModelConfig, RopeScaling
from llama_jax.errors import InputError

_READ = frozenset(
    "block_count embedding_length feed_forward_length context_length vocab_size "
    "attention.head_count attention.head_count_kv attention.key_length attention.value_length "
    "attention.layer_norm_rms_epsilon rope.dimension_count rope.freq_base rope.scaling.type "
    "rope.scaling.factor".split()
)
_HARMLESS = frozenset(
    # How the file was made; and the length before stretching, which `linear` does not use.
    "tensor_data_layout rope.scaling.finetuned rope.scaling.original_context_length".split()
)
# Keys of mixtures of experts that dense models carry as zeros.
_ZERO = frozenset(("expert_count", "expert_used_count"))


def config_from_gguf(
    metadata: Mapping[str, Any],
    *,
    vocab_size: int,
    tied_embeddings: bool,
    rope_divisors: np.ndarray | None,
    file,
) -> ModelConfig:
    """The `ModelConfig` of a GGUF file of architecture `llama`.

    Args:
      metadata: all metadata of the file.
      vocab_size: rows of its embedding.
      tied_embeddings: whether it has no `output.weight`.
      rope_divisors: its `rope_freqs.weight`, float32 `[H / 2]`, or None.
      file: named in errors.

    Raises `InputError` for another architecture, an unknown key of the architecture, and a value
    that is not implemented.
    """
    _refuse_other_models(metadata, file)
    typed = TypedFields(
        {key[6:]: value for key, value in metadata.items() if key.startswith("llama.")},
        f"{file}: llama",
    )
    heads, model_dim = typed.integer("attention.head_count"), typed.integer("embedding_length")
    if heads <= 0 or ("attention.key_length" not in typed.fields and model_dim % heads):
        raise InputError(f"{file}: embedding_length does not divide into attention.head_count")
    head_dim = typed.integer("attention.key_length", model_dim // heads)
    for key in ("attention.value_length", "rope.dimension_count"):
        if typed.integer(key, head_dim) != head_dim:
            raise InputError(f"{file}: llama.{key} must be the head dimension {head_dim}")
    if typed.integer("vocab_size", vocab_size) != vocab_size:
        raise InputError(f"{file}: llama.vocab_size is not the embedding's {vocab_size} rows")
    theta = typed.number("rope.freq_base", 10_000.0)
    # Stored as float32: 1e-05 comes as 9.999999747378752e-06. Take the shortest decimal that is the
    # same float32, which is what the model was published with.
    norm_eps = float(str(np.float32(typed.number("attention.layer_norm_rms_epsilon"))))
    sizes = {
        "vocab_size": vocab_size,
        "num_layers": typed.integer("block_count"),
        "model_dim": model_dim,
        "num_heads": heads,
        "num_kv_heads": typed.integer("attention.head_count_kv", heads),
        "head_dim": head_dim,
        "feed_forward_dim": typed.integer("feed_forward_length"),
        "norm_eps": norm_eps,
        "rope_theta": theta,
        "rope_scaling": _read_scaling(typed, rope_divisors, theta, head_dim, file),
        "context_length": typed.integer("context_length"),
        "tied_embeddings": tied_embeddings,
    }
    return make_from_file(ModelConfig, file, **sizes)


def llama3_divisors(scaling: Llama3Scaling, theta: float, head_dim: int) -> np.ndarray:
    """What `scaling` divides each rotary frequency by: float64 `[H / 2]`."""
    frequencies = theta ** -(np.arange(0, head_dim, 2) / head_dim)
    # Turns that each frequency makes within the original context.
    turns = scaling.original_context_length * frequencies / (2 * math.pi)
    low, high = scaling.low_frequency_factor, scaling.high_frequency_factor
    kept = np.clip((turns - low) / (high - low), 0.0, 1.0)
    return 1 / (kept + (1 - kept) / scaling.factor)


def _refuse_other_models(metadata: Mapping[str, Any], file) -> None:
    architecture = metadata.get("general.architecture")
    if architecture != "llama":
        raise InputError(
            f"{file}: general.architecture {str(architecture)[:80]!r} is not supported; only "
            "'llama' is"
        )
    if metadata.get("general.type", "model") != "model":
        raise InputError(f"{file}: general.type is not 'model'; give the file of the model itself")
    if metadata.get("split.count", 0) not in (0, 1):
        raise InputError(f"{file}: one part of a split file; join it (llama-gguf-split --merge)")
    for key, value in metadata.items():
        name = key.removeprefix("llama.")
        if name == key or name in _READ | _HARMLESS or (name in _ZERO and value == 0):
            continue
        raise InputError(f"{file}: {key[:200]!r} = {str(value)[:80]} is not supported")


def _read_scaling(
    typed: TypedFields, divisors: np.ndarray | None, theta: float, head_dim: int, file
) -> RopeScaling | None:
    # As llama.cpp: a factor without a type is linear.
    has_factor = "rope.scaling.factor" in typed.fields
    kind = typed.fields.get("rope.scaling.type", "linear" if has_factor else "none")
    if kind not in ("none", "linear") or (divisors is not None and kind != "none"):
        raise InputError(f"{file}: llama.rope.scaling.type {str(kind)[:80]!r} is not supported")
    if kind == "linear":
        factor = typed.number("rope.scaling.factor")
        return make_from_file(LinearScaling, f"{file}: llama.rope.scaling", factor=factor)
    if divisors is None:
        return None
    factor = float(divisors.max())
    if divisors.shape == (head_dim // 2,) and 1 <= factor < math.inf and theta > 0:
        scaling = Llama3Scaling(
            factor=factor,
            low_frequency_factor=1.0,
            high_frequency_factor=4.0,
            original_context_length=8192,
        )
        # Converters compute in float32, where the interpolated band keeps about five digits.
        expected = llama3_divisors(scaling, theta, head_dim)
        if np.allclose(divisors, expected, rtol=1e-4, atol=0):
            return scaling
    raise InputError(
        f"{file}: rope_freqs.weight is not a scaling of Llama 3 (low 1, high 4, original context "
        "8192); other frequency tables are not supported"
    )
