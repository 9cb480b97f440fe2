"""Llama 3.1 in JAX: the network, its text side and its weights.

    config, params = llama_jax.load_checkpoint("Llama-3.1-8B")
    hidden = llama_jax.forward(params, tokens, config=config)

Names are imported when first used, so that `llama-jax --help` does not wait for JAX, and a machine
without, say, tokenizers can still run the model.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_EXPORTS = {
    "ModelConfig": "llama_jax.config",
    "DECODE": "llama_jax.model",
    "PREFILL": "llama_jax.model",
    "REFERENCE": "llama_jax.model",
    "KVCache": "llama_jax.model",
    "Operators": "llama_jax.model",
    "abstract_params": "llama_jax.model",
    "forward": "llama_jax.model",
    "forward_cached": "llama_jax.model",
    "init_cache": "llama_jax.model",
    "init_params": "llama_jax.model",
    "logits": "llama_jax.model",
    "unstack_blocks": "llama_jax.model",
    "load_checkpoint": "llama_jax.checkpoints.load",
    "save_checkpoint": "llama_jax.checkpoints.save",
    "load_tokenizer": "llama_jax.tokenizers",
}

__all__ = list(_EXPORTS)


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'llama_jax' has no attribute {name!r}")
    return getattr(importlib.import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_EXPORTS])
