"""The heavy operators, as an argument of the model.

`REFERENCE` is plain jnp, runs anywhere, has gradients, and is the oracle of the others.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax

from llama_jax.kernels.attention import chunked
from llama_jax.kernels.attention import reference as attention_reference
from llama_jax.kernels.matmul import flattened
from llama_jax.kernels.matmul import reference as matmul_reference


@dataclass(frozen=True)
class Operators:
    """What the model computes with.

    Attributes:
      attention: signature of `kernels/attention/reference.py`.
      matmul: signature of `kernels/matmul/reference.py`.
    """

    attention: Callable[..., jax.Array]
    matmul: Callable[..., jax.Array]


REFERENCE = Operators(attention=attention_reference.attention, matmul=matmul_reference.matmul)
# Inference on one device. Prompts: attention in O(T) memory that skips what the mask hides.
PREFILL = Operators(attention=chunked.attention, matmul=flattened.matmul)
# One token a row: attention over a cache that is mostly full, in one piece.
DECODE = Operators(attention=attention_reference.attention, matmul=flattened.matmul)
