"""Rotary position embeddings (arXiv 2104.09864) and their stretching to longer contexts.

Half-split pairing: dimension i of a head turns with i + H/2. Angles are float32 and so is the
rotation; at position 100,000 bfloat16 cannot tell two neighbouring positions apart.

An angle is position times frequency, so at position 100,000 the last bit of a frequency moves the
angle by 0.006 radian. PyTorch computes frequencies in float32 and models are trained with those, so
`_powers` reproduces its bits: base and exponents rounded to float32, then the power, then the
reciprocal. (For the head dimensions of published models; PyTorch's own power is one bit off the
rounded one for some others, such as 96.)
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from llama_jax.config import (
    DynamicNtkScaling,
    LinearScaling,
    Llama3Scaling,
    ModelConfig,
    NtkScaling,
)


def rope_angles(positions: jax.Array, config: ModelConfig) -> tuple[jax.Array, jax.Array]:
    """Cosine and sine of every rotation, computed once and shared by all layers.

    Args:
      positions: int `[B, T]`.

    Returns:
      Two float32 arrays `[B, T, H/2]`.
    """
    if isinstance(config.rope_scaling, DynamicNtkScaling):
        frequencies = _dynamic_frequencies(positions, config)[:, None, :]  # [B, 1, H/2]
    else:
        frequencies = jnp.asarray(rope_frequencies(config))
    angles = positions[..., None].astype(jnp.float32) * frequencies
    return jnp.cos(angles), jnp.sin(angles)


def apply_rope(x: jax.Array, cosine: jax.Array, sine: jax.Array) -> jax.Array:
    """Rotates every head of `x` `[B, heads, T, H]` by angles `[B, T, H/2]`; same dtype."""
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    cosine, sine = cosine[:, None], sine[:, None]
    rotated = [first * cosine - second * sine, second * cosine + first * sine]
    return jnp.concatenate(rotated, axis=-1).astype(x.dtype)


def rope_frequencies(config: ModelConfig) -> np.ndarray:
    """Radians per position, float32 `[H/2]`, scaling applied.

    For `DynamicNtkScaling` these are the frequencies within the original context.
    """
    match config.rope_scaling:
        case NtkScaling():
            return rope_frequencies(config.fold_ntk())
        case LinearScaling(factor):
            return _powers(config.rope_theta, config.head_dim) / np.float32(factor)
        case Llama3Scaling() as scaling:
            return _llama3(_powers(config.rope_theta, config.head_dim), scaling)
        case None | DynamicNtkScaling():
            return _powers(config.rope_theta, config.head_dim)
        case other:
            raise TypeError(f"no frequencies for RoPE scaling {other!r}")


@functools.lru_cache
def _powers(theta: float, head_dim: int) -> np.ndarray:
    exponents = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
    powers = np.float64(np.float32(theta)) ** exponents.astype(np.float64)
    frequencies = np.float32(1) / powers.astype(np.float32)
    frequencies.flags.writeable = False
    return frequencies


def _llama3(frequencies: np.ndarray, scaling: Llama3Scaling) -> np.ndarray:
    """Meta's `apply_scaling`: long waves divided by the factor, short ones kept, a ramp between.

    Number over tensor is number times reciprocal, as PyTorch rounds it.
    """
    one, factor = np.float32(1), np.float32(scaling.factor)
    low, high = scaling.low_frequency_factor, scaling.high_frequency_factor
    original = scaling.original_context_length
    wavelengths = np.float32(2 * math.pi) * (one / frequencies)
    ramp = np.float32(original) * (one / wavelengths) - np.float32(low)
    ramp = ramp / np.float32(high - low)
    between = (one - ramp) * frequencies / factor + ramp * frequencies
    long, short = wavelengths > original / low, wavelengths < original / high
    return np.select([long, short], [frequencies / factor, frequencies], between)


def _dynamic_frequencies(positions: jax.Array, config: ModelConfig) -> jax.Array:
    """Frequencies for each row's length so far, float32 `[B, H/2]`.

    The length is the largest position + 1. While decoding, keys keep the rotation they were cached
    with and only new ones use the longer length, as in transformers.
    """
    scaling = config.rope_scaling
    length = jnp.max(positions, axis=1) + 1
    length = jnp.maximum(length, scaling.original_context_length).astype(jnp.float32)
    growth = scaling.factor * length / scaling.original_context_length - (scaling.factor - 1)
    head_dim = config.head_dim
    theta = config.rope_theta * growth ** (head_dim / (head_dim - 2))  # [B]
    exponents = jnp.arange(0, head_dim, 2, dtype=jnp.float32) / head_dim
    return 1.0 / theta[:, None] ** exponents
