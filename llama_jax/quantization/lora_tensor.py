"""A frozen weight with a low-rank change beside it (LoRA, arXiv 2106.09685).

    weight = base + scaling * up @ down

It takes an array's place in `params`, like `QuantizedTensor`, and its base may be one (QLoRA,
arXiv 2305.14314). The base comes first among its leaves and has the weight's own shape, which is
what Linen checks; under a stack of layers all have the layers in front.
"""

import dataclasses

import jax
import jax.numpy as jnp

from llama_jax.quantization.quantized_tensor import QuantizedTensor


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LoraTensor:
    """A weight `[out..., in...]`, possibly with layers in front.

    Attributes:
      base: as it was; a step does not change it.
      down: `[rank, in...]`.
      up: `[out..., rank]`.
      scaling: static, alpha / rank.
    """

    base: jax.Array | QuantizedTensor
    down: jax.Array
    up: jax.Array
    scaling: float = dataclasses.field(metadata={"static": True})

    @property
    def shape(self) -> tuple[int, ...]:
        return self.base.shape

    @property
    def ndim(self) -> int:
        return self.base.ndim

    @property
    def dtype(self) -> jnp.dtype:
        """Of the base, where it is not quantised."""
        return self.base.dtype
