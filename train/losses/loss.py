"""What a loss is to the step: a sum over what counts, divided once by the count of the whole step.

A loss is a frozen dataclass of its numbers, held in `StageConfig.loss`. It never divides by itself,
so that neither micro-batches nor devices with few tokens, pairs or comparisons weigh more.
"""

from typing import Any, ClassVar, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from llama_jax.model import Params
from train.network import Network

Batch = dict[str, jax.Array]
# Arrays that a step reads and does not change, {} if there are none: a reference policy, a teacher.
Frozen = dict[str, Any]


class LossSums(NamedTuple):
    """Sums of one micro-batch, float32 scalars.

    Attributes:
      total: what is minimised, once it is divided by the step's count.
      metrics: name -> numerator and denominator, each summed over the step before they are divided.
        `loss` is one of them: what is shown of a step and of held-out rows.
    """

    total: jax.Array
    metrics: dict[str, tuple[jax.Array, jax.Array]]


def sums_over(mask: jax.Array, values: dict[str, jax.Array]) -> LossSums:
    """Sums of `values`, `loss` among them, where `mask` of the same shape is true; each is a metric
    whose mean is over those places."""
    count = jnp.sum(mask, dtype=jnp.float32)
    sums = {name: jnp.sum(jnp.where(mask, value, 0.0)) for name, value in values.items()}
    return LossSums(sums["loss"], {name: (total, count) for name, total in sums.items()})


def token_arrays(row_length: int, *masks: str) -> dict[str, jax.ShapeDtypeStruct]:
    """What rows of every kind have of each token, and `masks`."""
    dtypes = dict.fromkeys(("tokens", "targets", "segment_ids"), jnp.int32)
    dtypes |= dict.fromkeys(masks, jnp.bool_)
    return {name: jax.ShapeDtypeStruct((row_length,), dtype) for name, dtype in dtypes.items()}


class Loss(Protocol):
    """Frozen and hashable, as its methods are traced by `jax.jit`.

    Attributes:
      counts: what the loss is a mean over, in the plural: `tokens`, `pairs`.
      held_out: metrics that are shown of held-out rows beside `loss`.
      row_kinds: of data that it can read (`Manifest.kind`).
      of_rewards: whether it trains a reward model, and not a policy.
      has_teacher: whether the model that it compares with may be another one than what is trained,
        of the same tokenizer.
      reference: where that model's log-probabilities come from: `stored` beside the data,
        `in_memory` from `frozen["reference"]`, or `none`.
    """

    counts: ClassVar[str]
    held_out: ClassVar[tuple[str, ...]]
    row_kinds: ClassVar[tuple[str, ...]]
    of_rewards: ClassVar[bool]
    has_teacher: ClassVar[bool]

    @property
    def reference(self) -> str: ...

    def check(self, place: str) -> None:
        """Raises `InputError` that names a field below `place` whose number cannot be."""
        ...

    def row_arrays(self, row_length: int, slots: int) -> dict[str, jax.ShapeDtypeStruct]:
        """The arrays of one row that it reads, by name; a batch has them stacked.

        Args:
          row_length: T.
          slots: pairs (P) or answers (E) that a row has room for.
        """
        ...

    def count(self, batch: Batch) -> jax.Array:
        """What the sums are divided by: a float32 scalar of the whole step, `[A, B, ...]`."""
        ...

    def sums(self, params: Params, frozen: Frozen, batch: Batch, *, network: Network) -> LossSums:
        """Sums of one micro-batch, `[B, ...]`."""
        ...


class ReferenceLoss(Loss, Protocol):
    """A loss that can read what another model says from beside the data."""

    @property
    def reference_key(self) -> tuple[str | float, ...]:
        """What that depends on besides the model and the data."""
        ...

    def reference_arrays(self, row_length: int, slots: int) -> dict[str, jax.ShapeDtypeStruct]:
        """What is stored of one row, by name; `row_arrays` has them too."""
        ...

    def ask_reference(
        self, params: Params, batch: Batch, slots: int, *, network: Network
    ) -> dict[str, jax.Array]:
        """`reference_arrays` of one micro-batch, `[B, ...]`, by the reference model `params`."""
        ...
