"""A quantised weight: small values and the scales that make numbers of them.

It takes an array's place in `params`. `values` comes first among its leaves and has the weight's
own shape, which is what Linen checks; under a stack of layers both have the layers in front.
"""

import dataclasses
import enum
import math

import jax
import jax.numpy as jnp

INT4_GROUP = 128


class WeightFormat(enum.StrEnum):
    """How a weight `[out..., in...]` is stored and multiplied.

    FP8: float8_e4m3fn, a scale per output channel; the product quantises activations too, per
      token (Meta's row-wise recipe, arXiv 2407.21783 section 6.2).
    INT8: int8, symmetric, a scale per output channel; activations stay as they are.
    INT4: int4 without a zero point, -8 to 7, a scale of either sign per output channel and
      `INT4_GROUP` inputs; activations stay as they are.
    """

    FP8 = "fp8"
    INT8 = "int8"
    INT4 = "int4"


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class QuantizedTensor:
    """A weight `[out..., in...]`, possibly with layers in front.

    Attributes:
      values: float8_e4m3fn, int8 or int4, in the weight's shape.
      scales: float32 `[out...]`; `[out..., groups]` for int4, whose groups divide the flattened
        inputs, the last one possibly shorter.
      format: static.
    """

    values: jax.Array
    scales: jax.Array
    format: WeightFormat = dataclasses.field(metadata={"static": True})

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    @property
    def ndim(self) -> int:
        return self.values.ndim

    def as_matrix(self, contracted: int) -> "QuantizedTensor":
        """The same weight as `[out, in]`, its last `contracted` dimensions being the inputs."""
        groups = self.scales.shape[-1:] if self.format is WeightFormat.INT4 else ()
        inputs = math.prod(self.shape[self.ndim - contracted :])
        values = self.values.reshape(-1, inputs)
        return QuantizedTensor(values, self.scales.reshape(-1, *groups), self.format)

    def dequantize(self, dtype: jnp.dtype) -> jax.Array:
        """The weight in `dtype`, multiplied out in float32."""
        values = self.values.astype(jnp.float32)
        if self.format is not WeightFormat.INT4:
            inputs = values.ndim - self.scales.ndim
            scales = self.scales.reshape(*self.scales.shape, *(1,) * inputs)
            return (values * scales).astype(dtype)
        *outputs, groups = self.scales.shape
        rows = values.reshape(*outputs, -1)
        padding = groups * INT4_GROUP - rows.shape[-1]
        rows = jnp.pad(rows, [(0, 0)] * len(outputs) + [(0, padding)])
        rows = rows.reshape(*outputs, groups, INT4_GROUP) * self.scales[..., None]
        rows = rows.reshape(*outputs, -1)[..., : groups * INT4_GROUP - padding]
        return rows.reshape(values.shape).astype(dtype)
