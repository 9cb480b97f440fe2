"""The operators that a command asks to decode with, checked before it answers anything."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from llama_jax.config import ModelConfig
from llama_jax.errors import InputError
from llama_jax.kernels.kernel_log import kernels_told
from llama_jax.kernels.matmul.few_tokens import MAX_TOKENS
from llama_jax.kernels.matmul.implementations import XLA
from llama_jax.kernels.select import inference_operators
from llama_jax.model import Operators, Params, forward_cached, init_cache
from llama_jax.quantization.quantized_tensor import QuantizedTensor


def decode_operators_for(
    params: Params,
    config: ModelConfig,
    *,
    matmul: str,
    num_rows: int = 1,
    say: Callable[[str], None],
) -> Operators | None:
    """Operators of decoding on this machine's devices; None if `Generator` is to choose.

    Args:
      params: weights with unstacked blocks.
      matmul: one of `kernels/matmul/implementations.py`, for quantised weights.
      num_rows: that are answered at once.
      say: is told which kernels were chosen.

    Raises:
      InputError: no weight is quantised, `matmul` does not take one of them on this device, or
        there are more rows than it takes.
    """
    if matmul == XLA:
        return None
    if not any(_is_quantized(leaf) for leaf in jax.tree.leaves(params, is_leaf=_is_quantized)):
        raise InputError(
            f"--matmul {matmul} multiplies quantised weights, and this model has none: quantise it "
            f"with llama-jax quantize, or use --matmul {XLA}"
        )
    if num_rows > MAX_TOKENS:
        raise InputError(
            f"--matmul {matmul} takes at most {MAX_TOKENS} rows at once, not {num_rows}: give "
            f"--batch-size {MAX_TOKENS}, or --matmul {XLA}"
        )
    device = jax.local_devices()[0]
    _, operators = inference_operators(device.platform, device.device_kind, matmul=matmul)

    def step(params: Params) -> Any:
        cache = init_cache(config, 1, 64, params["embedding"].dtype)
        token = jnp.zeros((1, 1), jnp.int32)
        return forward_cached(params, token, cache, config=config, operators=operators)

    # A token through the whole model, as shapes only: what refuses a weight says so now.
    with kernels_told(say):
        jax.eval_shape(step, params)
    return operators


def _is_quantized(leaf: Any) -> bool:
    return isinstance(leaf, QuantizedTensor)
