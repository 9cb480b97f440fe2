"""The models that a config may name: name -> `ModelConfig`."""

import dataclasses

from llama_jax.config import PUBLISHED_MODELS, TINY, ModelConfig

MODELS: dict[str, ModelConfig] = {**PUBLISHED_MODELS, "tiny": TINY}


def before_long_context(model: ModelConfig) -> ModelConfig:
    """`model` as it is pretrained: base frequency 500,000, no scaling, 8,192 tokens.

    The scaling of Llama 3.1 belongs to the long context, which comes after; Llama 3, published at
    this point, has exactly these numbers.
    """
    return dataclasses.replace(model, rope_scaling=None, context_length=8192)
