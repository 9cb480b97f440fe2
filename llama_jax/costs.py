"""What a model costs: parameters, floating-point operations, bytes. Formulas, nothing measured."""

import numpy as np

from llama_jax.config import ModelConfig


def num_parameters(config: ModelConfig) -> int:
    """Weights of the network; a tied embedding counts once."""
    c = config
    attention = c.model_dim * c.head_dim * (2 * c.num_heads + 2 * c.num_kv_heads)
    feed_forward = 3 * c.model_dim * c.feed_forward_dim
    norms = 2 * c.model_dim
    vocabulary = c.vocab_size * c.model_dim * (1 if c.tied_embeddings else 2)
    return c.num_layers * (attention + feed_forward + norms) + c.model_dim + vocabulary


def matmul_parameters(config: ModelConfig) -> int:
    """Weights that every token is multiplied by: no norms, no embedding look-up, one head."""
    c = config
    attention = c.model_dim * c.head_dim * (2 * c.num_heads + 2 * c.num_kv_heads)
    return c.num_layers * (attention + 3 * c.model_dim * c.feed_forward_dim) + (
        c.vocab_size * c.model_dim
    )


def forward_flops_per_token(config: ModelConfig, num_keys: float) -> float:
    """Floating-point operations of one token's forward pass; a multiply-add is two.

    `2 * weights + 4 * L * N * H * keys`, as PaLM (arXiv 2204.02311, appendix B). A training step
    costs three times as much. For a causal sequence of T tokens the mean `num_keys` is
    `(T + 1) / 2`; the convention that ignores the mask uses T.
    """
    attention = 4 * config.num_layers * config.num_heads * config.head_dim * num_keys
    return 2 * matmul_parameters(config) + attention


def kv_bytes_per_token(config: ModelConfig, dtype: np.dtype) -> int:
    """Bytes that one token adds to the KV cache."""
    per_layer = 2 * config.num_kv_heads * config.head_dim
    return config.num_layers * per_layer * np.dtype(dtype).itemsize


def weight_bytes(config: ModelConfig, dtype: np.dtype) -> int:
    """Bytes of all weights in one dtype."""
    return num_parameters(config) * np.dtype(dtype).itemsize
