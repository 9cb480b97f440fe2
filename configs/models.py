"""The models that a config may name: name -> `ModelConfig`."""

import dataclasses

from llama_jax.config import (
    LLAMA_31_8B,
    LLAMA_31_70B,
    LLAMA_31_405B,
    LLAMA_32_1B,
    LLAMA_32_3B,
    TINY,
    ModelConfig,
)

MODELS: dict[str, ModelConfig] = {
    "llama31_8b": LLAMA_31_8B,
    "llama31_70b": LLAMA_31_70B,
    "llama31_405b": LLAMA_31_405B,
    "llama32_1b": LLAMA_32_1B,
    "llama32_3b": LLAMA_32_3B,
    "tiny": TINY,
}


def before_long_context(model: ModelConfig) -> ModelConfig:
    """`model` as it is pretrained: base frequency 500,000, no scaling, 8,192 tokens.

    The scaling of Llama 3.1 belongs to the long context, which comes after; Llama 3, published at
    this point, has exactly these numbers.
    """
    return dataclasses.replace(model, rope_scaling=None, context_length=8192)
