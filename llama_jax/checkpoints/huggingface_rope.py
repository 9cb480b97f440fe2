"""RoPE in a Hugging Face `config.json`: `rope_theta`, `rope_scaling` and `rope_parameters`.

Where the numbers stand depends on who wrote the file. transformers 4 reads `rope_theta` and
`rope_scaling` and ignores `rope_parameters`; transformers 5 writes `rope_parameters` alone, and,
given both, takes a non-empty `rope_scaling` and completes it with `rope_theta`
(`RotaryEmbeddingConfigMixin.convert_rope_params_to_dict`, 5.23). So we write all three, saying the
same, and refuse a file whose places disagree: the two versions would compute different models.

`dynamic` has one length there, `max_position_embeddings`: the one it stretches from, and no limit.
Its `context_length` is therefore `factor` times that, which is also the length vLLM allows.
"""

from typing import Any

from llama_jax.checkpoints.typed_fields import TypedFields, make_from_file
from llama_jax.config import (
    DynamicNtkScaling,
    LinearScaling,
    Llama3Scaling,
    ModelConfig,
    RopeScaling,
)
from llama_jax.errors import InputError

_ROPE_KEYS = {
    "default": set(),
    "linear": {"factor"},
    "dynamic": {"factor", "original_max_position_embeddings"},
    "llama3": {
        "factor",
        "low_freq_factor",
        "high_freq_factor",
        "original_max_position_embeddings",
    },
}


def read_rope(typed: TypedFields) -> tuple[float, RopeScaling | None, int]:
    """`(rope_theta, rope_scaling, context_length)` of a `config.json`.

    Raises `InputError` for another kind of RoPE, unknown keys and places that disagree.
    """
    positions = typed.integer("max_position_embeddings", 2048)
    readings = {}
    if "rope_theta" in typed.fields:
        readings["rope_theta"] = typed.number("rope_theta")
    scalings = {}
    for place in ("rope_scaling", "rope_parameters"):
        rope = typed.fields.get(place) or {}
        if not isinstance(rope, dict):
            raise InputError(f"{typed.file}: {place} must be an object, not {str(rope)[:80]!r}")
        if rope:
            inner = TypedFields(rope, f"{typed.file}: {place}")
            scalings[place] = _read_scaling(inner, positions)
            if "rope_theta" in inner.fields:
                readings[f"{place}.rope_theta"] = inner.number("rope_theta")
    for found in (readings, scalings):
        if len(set(found.values())) > 1:
            raise InputError(
                f"{typed.file}: {' and '.join(found)} disagree; make them say the same"
            )
    theta = next(iter(readings.values()), 10_000.0)
    scaling = next(iter(scalings.values()), None)
    if isinstance(scaling, DynamicNtkScaling):
        return theta, scaling, _stretched(positions, scaling.factor, typed.file)
    return theta, scaling, positions


def _stretched(length: int, factor: float, file) -> int:
    if length * factor >= 2**63:
        raise InputError(f"{file}: max_position_embeddings times factor is no sensible length")
    return int(length * factor)


def _read_scaling(rope: TypedFields, positions: int) -> RopeScaling | None:
    kind = rope.fields.get("rope_type", rope.fields.get("type", "default"))
    if not isinstance(kind, str) or kind not in _ROPE_KEYS:
        raise InputError(
            f"{rope.file}: rope_type {str(kind)[:80]!r} is not supported; supported are "
            f"{', '.join(_ROPE_KEYS)}"
        )
    if rope.fields.get("type", kind) != kind:
        raise InputError(f"{rope.file}: type and rope_type disagree; make them say the same")
    known = _ROPE_KEYS[kind] | {"rope_type", "type", "rope_theta", "partial_rotary_factor"}
    for key in rope.fields:
        if key not in known:
            raise InputError(f"{rope.file}: {key!r} is not supported with rope_type {kind!r}")
    if rope.number("partial_rotary_factor", 1.0) != 1.0:
        raise InputError(f"{rope.file}: partial_rotary_factor is not supported; only 1 is")
    if kind == "default":
        return None
    factor = rope.number("factor")
    if kind == "linear":
        return make_from_file(LinearScaling, rope.file, factor=factor)
    if kind == "dynamic":
        # transformers reads no other length than max_position_embeddings here.
        if rope.integer("original_max_position_embeddings", positions) != positions:
            raise InputError(
                f"{rope.file}: original_max_position_embeddings must be max_position_embeddings "
                f"{positions}: transformers scales from that"
            )
        return make_from_file(
            DynamicNtkScaling, rope.file, factor=factor, original_context_length=positions
        )
    return make_from_file(
        Llama3Scaling,
        rope.file,
        factor=factor,
        low_frequency_factor=rope.number("low_freq_factor"),
        high_frequency_factor=rope.number("high_freq_factor"),
        original_context_length=rope.integer("original_max_position_embeddings"),
    )


def write_rope(config: ModelConfig) -> dict[str, Any]:
    """The keys of `config.json` that say the RoPE and the length.

    Static `ntk` has no name there and is written as the `rope_theta` that it amounts to. `linear`
    and `dynamic` are written under `type`, as every transformers since 4.31 reads them;
    `rope_type` came with `llama3`, in 4.43.

    Raises `InputError` for what the format cannot say.
    """
    config = config.fold_ntk()
    theta, scaling, positions = config.rope_theta, config.rope_scaling, config.context_length
    kind_key, kind, numbers = "type", "default", {}
    match scaling:
        case LinearScaling(factor):
            kind, numbers = "linear", {"factor": factor}
        case DynamicNtkScaling(factor, original):
            if positions != _stretched(original, factor, "model config"):
                raise InputError(
                    "model config: with dynamic scaling, Hugging Face can only say a "
                    "context_length of factor x original_context_length = "
                    f"{int(original * factor)}, not {positions}"
                )
            kind, numbers, positions = "dynamic", {"factor": factor}, original
        case Llama3Scaling(factor, low, high, original):
            kind_key, kind = "rope_type", "llama3"
            numbers = {
                "factor": factor,
                "low_freq_factor": low,
                "high_freq_factor": high,
                "original_max_position_embeddings": original,
            }
    return {
        "max_position_embeddings": positions,
        "rope_theta": theta,
        "rope_scaling": {kind_key: kind, **numbers} if numbers else None,
        "rope_parameters": {"rope_type": kind, "rope_theta": theta, **numbers},
    }
