"""Meta's `params.json` <-> `ModelConfig`.

The file holds the arguments of Meta's code (`ModelArgs` in meta-llama/llama-models), which
is why some of our numbers are not in it and some are only implied:

* The feed-forward width follows from `multiple_of` and `ffn_dim_multiplier`; writing searches a
  pair that gives the width back under Meta's formula.
* `use_scaled_rope` stands for factor 8, bands 1 and 4, original context 8192: constants of Meta's
  code. The published 3.2 configs on Hugging Face say factor 32 where Meta's code computes with 8.
  Writing such a config adds the key `rope_scaling_factor` (Llama 4's name for it), which we read
  back. Meta's Llama 3 code ignores keys it does not know and would compute with 8, so writing one
  logs a warning that says so. Any other scaling has no form in this file and is refused.
* The context length is not in the file: 131072 with scaled RoPE (Llama 3.1), else 8192 (Llama 3).
  Another length is kept in the key `context_length`, which changes nothing that Meta's code does.
* `rope_theta` must be there, although `ModelArgs` has a default: files without it are of Llama 1
  and 2, whose code used 10000 where Llama 3's has 500000.

Keys we do not know are refused: they stand for another network (vision, experts, quantization).
"""

import logging
import math
from pathlib import Path
from typing import Any

from llama_jax.checkpoints.typed_fields import TypedFields, make_from_file
from llama_jax.config import Llama3Scaling, ModelConfig
from llama_jax.errors import InputError

_META_SCALING = Llama3Scaling(
    factor=8.0, low_frequency_factor=1.0, high_frequency_factor=4.0, original_context_length=8192
)
_KEYS = frozenset(
    "dim n_layers n_heads n_kv_heads vocab_size multiple_of ffn_dim_multiplier norm_eps rope_theta "
    "use_scaled_rope rope_scaling_factor context_length".split()
)
# (dim, width) -> (multiple_of, ffn_dim_multiplier) of the published files.
_PUBLISHED_WIDTHS = {
    (2048, 8192): (256, 1.5),
    (3072, 8192): (256, 1.0),
    (4096, 14_336): (1024, 1.3),
    (8192, 28_672): (4096, 1.3),
    (16_384, 53_248): (4096, 1.2),
}

_log = logging.getLogger(__name__)


def config_from_params(
    fields: dict[str, Any], *, file: Path, vocab_rows: int, tied_embeddings: bool
) -> ModelConfig:
    """The config of the network that a parsed `params.json` describes, its KV heads as stored.

    Args:
      fields: the JSON object; absent keys get the defaults of Meta's `ModelArgs`, except `dim`,
        `n_layers`, `n_heads` and `rope_theta`, which must be there.
      file: named in errors.
      vocab_rows: rows of the stored head, for a `vocab_size` of -1 or none.
      tied_embeddings: whether the stored head is the embedding.

    Raises `InputError` for a key that is missing, unknown or of another network than dense Llama,
    and for a value of the wrong type.
    """
    typed = TypedFields(fields, file)
    for key in typed.fields:
        if key not in _KEYS:
            raise InputError(f"{file}: {_reason_to_refuse(key)}")
    if "rope_theta" not in typed.fields:
        raise InputError(
            f"{file}: rope_theta is missing; add 500000.0 for Llama 3 or 10000.0 for Llama 1 and 2"
        )
    model_dim, num_heads = typed.integer("dim"), typed.integer("n_heads")
    multiple_of = typed.integer("multiple_of", 256)
    for key, value in ("dim", model_dim), ("n_heads", num_heads), ("multiple_of", multiple_of):
        if value < 1:
            raise InputError(f"{file}: {key} must be positive, not {value}")
    if model_dim % num_heads:
        raise InputError(f"{file}: dim {model_dim} is not a multiple of n_heads {num_heads}")
    vocab_size = typed.integer("vocab_size", -1)
    scaled = typed.boolean("use_scaled_rope", False)
    if "rope_scaling_factor" in typed.fields and not scaled:
        raise InputError(f"{file}: rope_scaling_factor needs use_scaled_rope true")
    factor = typed.number("rope_scaling_factor", _META_SCALING.factor)
    scaling = make_from_file(_llama3_scaling, f"{file}: rope_scaling_factor", factor=factor)
    multiplier = typed.number("ffn_dim_multiplier", 1.0)
    return make_from_file(
        ModelConfig,
        file,
        vocab_size=vocab_rows if vocab_size == -1 else vocab_size,
        num_layers=typed.integer("n_layers"),
        model_dim=model_dim,
        num_heads=num_heads,
        num_kv_heads=typed.integer("n_kv_heads", num_heads),
        head_dim=model_dim // num_heads,
        feed_forward_dim=feed_forward_width(model_dim, multiple_of, multiplier),
        norm_eps=typed.number("norm_eps", 1e-5),
        rope_theta=typed.number("rope_theta"),
        rope_scaling=scaling if scaled else None,
        context_length=typed.integer("context_length", 131_072 if scaled else 8192),
        tied_embeddings=tied_embeddings,
    )


def _reason_to_refuse(key: str) -> str:
    if key in ("quantization_args", "lora_args"):
        return f"{key}: quantized variants are not supported; use the bfloat16 checkpoint"
    if key.startswith("vision_"):
        return f"{key}: vision models are not supported, only text Llama 3"
    if key in ("moe_args", "nope_layer_interval", "use_qk_norm", "attention_chunk_size"):
        return f"{key}: Llama 4 is not supported, only dense Llama"
    return f"{key!r} is not supported (it may change the model); remove it if it does not matter"


def _llama3_scaling(factor: float) -> Llama3Scaling:
    return Llama3Scaling(
        factor=factor,
        low_frequency_factor=_META_SCALING.low_frequency_factor,
        high_frequency_factor=_META_SCALING.high_frequency_factor,
        original_context_length=_META_SCALING.original_context_length,
    )


def params_from_config(config: ModelConfig, *, stored_kv_heads: int) -> dict[str, Any]:
    """The content of `params.json` for `config`.

    Args:
      config: the network.
      stored_kv_heads: KV heads in the files, duplicates counted.

    Raises `InputError` for what the file cannot say: another RoPE scaling, a head dimension other
    than `model_dim / num_heads`, a reward head.
    """
    if config.reward_head:
        raise InputError("Meta's files have no reward head; use --to hf or orbax")
    if config.head_dim * config.num_heads != config.model_dim:
        raise InputError(
            f"Meta's params.json has no head dimension: head_dim {config.head_dim} must be "
            f"model_dim / num_heads = {config.model_dim}/{config.num_heads}; use --to hf or orbax"
        )
    multiple_of, multiplier = feed_forward_rule(config.model_dim, config.feed_forward_dim)
    config = config.fold_ntk()
    scaling = config.rope_scaling
    fields = {
        "dim": config.model_dim,
        "ffn_dim_multiplier": multiplier,
        "multiple_of": multiple_of,
        "n_heads": config.num_heads,
        "n_kv_heads": stored_kv_heads,
        "n_layers": config.num_layers,
        "norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
        "use_scaled_rope": scaling is not None,
        "vocab_size": config.vocab_size,
    }
    if scaling is not None:
        if not isinstance(scaling, Llama3Scaling) or scaling != _llama3_scaling(scaling.factor):
            raise InputError(
                f"Meta's params.json cannot express {scaling}: its code has only llama3 scaling "
                "with bands 1 and 4 and original context 8192; use --to hf or orbax"
            )
        if scaling.factor != _META_SCALING.factor:
            fields["rope_scaling_factor"] = scaling.factor
            _log.warning(
                "params.json: rope_scaling_factor %g is read by llama-jax; Meta's own Llama 3 code "
                "ignores it and computes with 8",
                scaling.factor,
            )
    if config.context_length != (8192 if scaling is None else 131_072):
        fields["context_length"] = config.context_length
    return fields


def feed_forward_width(model_dim: int, multiple_of: int, multiplier: float) -> int:
    """Meta's rule: two thirds of 4 D, times the multiplier, rounded up to `multiple_of`."""
    width = int(multiplier * int(2 * (4 * model_dim) / 3))
    return multiple_of * ((width + multiple_of - 1) // multiple_of)


def feed_forward_rule(model_dim: int, width: int) -> tuple[int, float]:
    """`(multiple_of, ffn_dim_multiplier)` that give `width`: the published pair, or the shortest
    decimal that does.

    Worked example: D = 64 and width 128. Two thirds of 256 is 170, 128/170 = 0.753; with
    `multiple_of` 128, 0.8 gives 136 and rounds up to 256, 0.75 gives 127 and rounds up to 128.
    """
    if (model_dim, width) in _PUBLISHED_WIDTHS:
        return _PUBLISHED_WIDTHS[model_dim, width]
    multiple_of = math.gcd(width, 256)
    ratio = width / int(2 * (4 * model_dim) / 3)
    candidates = [round(ratio, digits) for digits in range(1, 16)]
    # int() cuts the exact ratio's product below the width when it was rounded down.
    for multiplier in (*candidates, ratio, math.nextafter(ratio, math.inf)):
        if feed_forward_width(model_dim, multiple_of, multiplier) == width:
            return multiple_of, multiplier
    raise InputError(f"no ffn_dim_multiplier gives feed_forward_dim {width} for dim {model_dim}")
