"""What a model costs: parameters, floating-point operations, bytes. Formulas, nothing measured."""

from typing import Any

import jax
import ml_dtypes
import numpy as np

from llama_jax.config import ModelConfig
from llama_jax.quantization.quantized_tensor import INT4_GROUP, WeightFormat
from llama_jax.quantization.recipes import Recipe, recipe_named


def num_parameters(config: ModelConfig) -> int:
    """Weights of the network; a tied embedding counts once."""
    c = config
    attention = c.model_dim * c.head_dim * (2 * c.num_heads + 2 * c.num_kv_heads)
    feed_forward = 3 * c.model_dim * c.feed_forward_dim
    norms = 2 * c.model_dim
    outside = c.model_dim + c.vocab_size * c.model_dim * (2 if c.has_head else 1)
    outside += c.model_dim if c.reward_head else 0
    return c.num_layers * (attention + feed_forward + norms) + outside


def matmul_parameters(config: ModelConfig) -> int:
    """Weights that every token is multiplied by: no norms, no embedding look-up, one head, which a
    reward model has not."""
    c = config
    attention = c.model_dim * c.head_dim * (2 * c.num_heads + 2 * c.num_kv_heads)
    head = 0 if c.reward_head else c.vocab_size * c.model_dim
    return c.num_layers * (attention + 3 * c.model_dim * c.feed_forward_dim) + head


def forward_flops_per_token(config: ModelConfig, num_keys: float) -> float:
    """Floating-point operations of one token's forward pass; a multiply-add is two.

    `2 * weights + 4 * L * N * H * keys`, as PaLM (arXiv 2204.02311, appendix B). A training step
    costs three times as much. For a causal sequence of T tokens the mean `num_keys` is
    `(T + 1) / 2`; the convention that ignores the mask uses T.
    """
    attention = 4 * config.num_layers * config.num_heads * config.head_dim * num_keys
    return 2 * matmul_parameters(config) + attention


def kv_bytes_per_token(config: ModelConfig, dtype: np.dtype) -> int:
    """Bytes that one token adds to the KV cache; in 8 bits each vector has a float32 scale."""
    itemsize = np.dtype(dtype).itemsize
    vector = config.head_dim * itemsize + (4 if itemsize == 1 else 0)
    return config.num_layers * 2 * config.num_kv_heads * vector


def weight_bytes(config: ModelConfig, dtype: np.dtype, recipe: Recipe | str | None = None) -> int:
    """Bytes of all weights: of the products that `recipe` quantises in its formats, scales
    included, and of everything else in `dtype`."""
    return sum(weight_parts(config, dtype, recipe).values())


def stored_bytes(params: Any) -> int:
    """Bytes of a tree of weights as they are, scales included; two 4-bit integers share a byte."""
    sizes = (
        -(-x.size // 2) if x.dtype == np.dtype(ml_dtypes.int4) else x.size * x.dtype.itemsize
        for x in jax.tree.leaves(params)
    )
    return sum(sizes)


def weight_parts(
    config: ModelConfig, dtype: np.dtype, recipe: Recipe | str | None = None
) -> dict[str, int]:
    """`weight_bytes`, part by part.

    Of a product with O outputs and I inputs: `fp8` and `int8` take `O * I + 4 * O` bytes, `int4`
    takes `O * (ceil(I / 2) + 4 * ceil(I / 128))`; scales are float32.
    """
    c = config
    recipe = recipe_named(recipe) if isinstance(recipe, str) else recipe
    itemsize = np.dtype(dtype).itemsize
    query, key_value = c.num_heads * c.head_dim, c.num_kv_heads * c.head_dim
    products = {
        "attention.query": (query, c.model_dim),
        "attention.key": (key_value, c.model_dim),
        "attention.value": (key_value, c.model_dim),
        "attention.output": (c.model_dim, query),
        "feed_forward.gate": (c.feed_forward_dim, c.model_dim),
        "feed_forward.up": (c.feed_forward_dim, c.model_dim),
        "feed_forward.down": (c.model_dim, c.feed_forward_dim),
    }
    vocabulary = c.vocab_size * c.model_dim * itemsize
    parts = {"embedding": vocabulary, "attention": 0, "feed_forward": 0}
    for layer in range(c.num_layers):
        for product, (outputs, inputs) in products.items():
            weight_format = recipe and recipe.format_of(f"blocks.{layer}.{product}", c.num_layers)
            size = outputs * inputs * itemsize
            if weight_format is WeightFormat.INT4:
                size = outputs * (-(-inputs // 2) + 4 * -(-inputs // INT4_GROUP))
            elif weight_format is not None:
                size = outputs * inputs + 4 * outputs
            parts[product.partition(".")[0]] += size
    parts["norms"] = (2 * c.num_layers + 1) * c.model_dim * itemsize
    if c.reward_head:
        parts["reward_head"] = c.model_dim * itemsize
    return parts | {"head": vocabulary} if c.has_head else parts
