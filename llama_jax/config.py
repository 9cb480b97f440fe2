"""What a Llama is, in numbers: `ModelConfig`, its RoPE scaling, and the published sizes.

Every number the network uses is a field here and nowhere else has a default. Sizes are from
Llama 3 (arXiv 2407.21783, table 3) and Meta's released `params.json` files; parameter counts are
checked in `tests/test_costs.py`.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from llama_jax.errors import InputError


@dataclass(frozen=True)
class Llama3Scaling:
    """Wavelength-banded scaling of Llama 3.1 (Meta's `apply_scaling`).

    Wavelengths over `original_context_length / low_frequency_factor` are divided in frequency by
    `factor`, those under `original_context_length / high_frequency_factor` are kept, and those
    between are interpolated. Llama 3.1 has factor 8; the published 3.2 1B/3B configs say 32.
    """

    factor: float
    low_frequency_factor: float
    high_frequency_factor: float
    original_context_length: int

    def __post_init__(self):
        _check_numbers(self)
        if self.low_frequency_factor >= self.high_frequency_factor:
            raise InputError(
                "model config: low_frequency_factor must be below high_frequency_factor"
            )


@dataclass(frozen=True)
class NtkScaling:
    """Static NTK-aware scaling: `theta * factor ** (d / (d - 2))` with head dimension d."""

    factor: float

    def __post_init__(self):
        _check_numbers(self)


@dataclass(frozen=True)
class DynamicNtkScaling:
    """NTK-aware scaling that grows with the sequence, as `dynamic` in transformers.

    With n tokens so far and n over `original_context_length`, theta is multiplied by
    `(factor * n / original_context_length - (factor - 1)) ** (d / (d - 2))`.
    """

    factor: float
    original_context_length: int

    def __post_init__(self):
        _check_numbers(self)


@dataclass(frozen=True)
class LinearScaling:
    """Position interpolation: every frequency divided by `factor` (arXiv 2306.15595)."""

    factor: float

    def __post_init__(self):
        _check_numbers(self)


def _check_numbers(what: Any) -> None:
    """Raises `InputError` unless every number of the dataclass `what` is a positive, finite one of
    its declared type; an integer will do for a float."""
    for field in dataclasses.fields(what):
        value = getattr(what, field.name)
        if field.type is bool:
            right = type(value) is bool
        elif field.type in (int, float):
            types = (int,) if field.type is int else (int, float)
            right = type(value) in types and 0 < value < math.inf
        else:
            continue
        if not right:
            kind = {bool: "true or false", int: "a positive integer", float: "a positive number"}
            raise InputError(f"model config: {field.name} must be {kind[field.type]}, not {value}")


RopeScaling = Llama3Scaling | NtkScaling | DynamicNtkScaling | LinearScaling
_SCALINGS: dict[str, type[RopeScaling]] = {
    "llama3": Llama3Scaling,
    "ntk": NtkScaling,
    "dynamic": DynamicNtkScaling,
    "linear": LinearScaling,
}


@dataclass(frozen=True)
class ModelConfig:
    """A dense Llama-architecture decoder.

    Attributes:
      vocab_size: rows of the embedding and of the head (V).
      num_layers: decoder blocks (L).
      model_dim: width of the residual stream (D).
      num_heads: query heads (N).
      num_kv_heads: key and value heads (K); divides `num_heads`.
      head_dim: width of one head (H), even.
      feed_forward_dim: hidden width of the SwiGLU feed-forward (F).
      norm_eps: epsilon of every RMSNorm.
      rope_theta: base of the rotary frequencies.
      rope_scaling: how the frequencies stretch to a longer context, or None.
      context_length: the most tokens a sequence may have.
      tied_embeddings: whether the embedding matrix is also the head.
      reward_head: whether it is a reward model, which has a vector that gives a text a score, and
        no head.
    """

    vocab_size: int
    num_layers: int
    model_dim: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    feed_forward_dim: int
    norm_eps: float
    rope_theta: float
    rope_scaling: RopeScaling | None
    context_length: int
    tied_embeddings: bool
    reward_head: bool = False

    def __post_init__(self):
        _check_numbers(self)
        if self.num_heads % self.num_kv_heads:
            raise InputError(
                f"model config: num_heads {self.num_heads} is not a multiple of "
                f"num_kv_heads {self.num_kv_heads}"
            )
        if self.head_dim % 2:
            raise InputError(f"model config: head_dim {self.head_dim} must be even for RoPE")
        if self.head_dim == 2 and isinstance(self.rope_scaling, NtkScaling | DynamicNtkScaling):
            raise InputError("model config: NTK scaling needs a head_dim over 2")

    @property
    def has_head(self) -> bool:
        """Whether the head is a parameter of its own."""
        return not (self.tied_embeddings or self.reward_head)

    def fold_ntk(self) -> "ModelConfig":
        """The same computation with static NTK scaling written as the `rope_theta` it amounts to,
        for file formats that have no name for it."""
        if not isinstance(self.rope_scaling, NtkScaling):
            return self
        theta = self.rope_theta * self.rope_scaling.factor ** (self.head_dim / (self.head_dim - 2))
        return dataclasses.replace(self, rope_theta=theta, rope_scaling=None)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready fields; `from_dict` is the inverse."""
        fields = dataclasses.asdict(self)
        if self.rope_scaling is not None:
            kind = next(k for k, cls in _SCALINGS.items() if type(self.rope_scaling) is cls)
            fields["rope_scaling"] = {"kind": kind, **fields["rope_scaling"]}
        return fields

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "ModelConfig":
        """Inverse of `to_dict`. Raises `InputError` for a missing or unknown field or kind."""
        fields = dict(fields)
        scaling = fields.get("rope_scaling")
        try:
            if scaling is not None:
                scaling = dict(scaling)
                fields["rope_scaling"] = _SCALINGS[scaling.pop("kind")](**scaling)
            return cls(**fields)
        except (TypeError, KeyError) as error:
            raise InputError(f"model config: {error}") from error


_LLAMA_31 = ModelConfig(
    vocab_size=128_256,
    num_layers=32,
    model_dim=4096,
    num_heads=32,
    num_kv_heads=8,
    head_dim=128,
    feed_forward_dim=14_336,
    norm_eps=1e-5,
    rope_theta=500_000.0,
    rope_scaling=Llama3Scaling(
        factor=8.0,
        low_frequency_factor=1.0,
        high_frequency_factor=4.0,
        original_context_length=8192,
    ),
    context_length=131_072,
    tied_embeddings=False,
)

LLAMA_31_8B = _LLAMA_31
LLAMA_31_70B = dataclasses.replace(
    _LLAMA_31, num_layers=80, model_dim=8192, num_heads=64, feed_forward_dim=28_672
)
LLAMA_31_405B = dataclasses.replace(
    _LLAMA_31, num_layers=126, model_dim=16_384, num_heads=128, feed_forward_dim=53_248
)
# The published 3.2 configs stretch by 32 where Meta's own code has 8 for every model.
_LLAMA_32 = dataclasses.replace(
    _LLAMA_31,
    feed_forward_dim=8192,
    rope_scaling=dataclasses.replace(_LLAMA_31.rope_scaling, factor=32.0),
    tied_embeddings=True,
)
LLAMA_32_1B = dataclasses.replace(_LLAMA_32, num_layers=16, model_dim=2048, head_dim=64)
LLAMA_32_3B = dataclasses.replace(_LLAMA_32, num_layers=28, model_dim=3072, num_heads=24)
# Small enough for a test on one CPU, with every feature of Llama 3.1 in it.
TINY = dataclasses.replace(
    _LLAMA_31,
    vocab_size=256,
    num_layers=2,
    model_dim=64,
    num_heads=4,
    num_kv_heads=2,
    head_dim=16,
    feed_forward_dim=128,
)
# As configs and commands name them.
PUBLISHED_MODELS: dict[str, ModelConfig] = {
    "llama31_8b": LLAMA_31_8B,
    "llama31_70b": LLAMA_31_70B,
    "llama31_405b": LLAMA_31_405B,
    "llama32_1b": LLAMA_32_1B,
    "llama32_3b": LLAMA_32_3B,
}
