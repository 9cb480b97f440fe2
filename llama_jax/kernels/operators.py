"""The heavy operators, as an argument of the model.

`REFERENCE` is plain jnp, runs anywhere, has gradients, and is the oracle of the others.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import jax

from llama_jax.kernels.attention import chunked
from llama_jax.kernels.attention import reference as attention_reference
from llama_jax.kernels.matmul import flattened
from llama_jax.kernels.matmul import reference as matmul_reference
from llama_jax.kernels.paged_attention import reference as paged_reference


@dataclass(frozen=True)
class Operators:
    """What the model computes with.

    Attributes:
      attention: signature of `kernels/attention/reference.py`.
      matmul: signature of `kernels/matmul/reference.py`.
      edge_matmul: replaces `matmul` in the first and the last block, which are the ones that suffer
        most from few bits; None makes no difference between blocks.
      paged_attention: signature of `kernels/paged_attention/reference.py`; for caches in pages.
    """

    attention: Callable[..., jax.Array]
    matmul: Callable[..., jax.Array]
    edge_matmul: Callable[..., jax.Array] | None = None
    paged_attention: Callable[..., jax.Array] = paged_reference.paged_attention

    def of_block(self, index: int, num_blocks: int) -> "Operators":
        """What block `index` computes with; it has no `edge_matmul` of its own."""
        is_edge = index in (0, num_blocks - 1) and self.edge_matmul is not None
        matmul = self.edge_matmul if is_edge else self.matmul
        return dataclasses.replace(self, matmul=matmul, edge_matmul=None)


REFERENCE = Operators(attention=attention_reference.attention, matmul=matmul_reference.matmul)
# Inference on one device. Prompts: attention in O(T) memory that skips what the mask hides.
PREFILL = Operators(attention=chunked.attention, matmul=flattened.matmul)
# One token a row: attention over a cache that is mostly full, in one piece.
DECODE = Operators(attention=attention_reference.attention, matmul=flattened.matmul)
