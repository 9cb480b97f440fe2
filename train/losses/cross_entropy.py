"""Next-token cross-entropy over packed rows: pretraining, and fine-tuning on answers."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp

from llama_jax.model import Params, output_head
from train.field_checks import at_least
from train.losses.loss import Batch, Frozen, LossSums, token_arrays
from train.network import Network


@dataclass(frozen=True)
class CrossEntropy:
    """Mean negative log-probability of the targets that count, in nats a token.

    The batch has `tokens`, `targets`, `segment_ids` int32 and `loss_mask` bool, each `[A, B, T]`.
    Metrics: `loss`, without the z-loss, so that runs with and without it compare, and `z_loss`, the
    mean squared log-normaliser.

    Attributes:
      z_loss: weight of the squared log-normaliser, which keeps the logits from drifting (PaLM,
        arXiv 2204.02311, section 5); 0 leaves it out.
    """

    z_loss: float = 0.0

    counts: ClassVar[str] = "tokens"
    held_out: ClassVar[tuple[str, ...]] = ()
    row_kinds: ClassVar[tuple[str, ...]] = ("text", "dialogs")
    of_rewards: ClassVar[bool] = False
    has_teacher: ClassVar[bool] = False
    reference: ClassVar[str] = "none"

    def check(self, place: str) -> None:
        """Raises `InputError` for a weight that is negative or not finite."""
        at_least(self.z_loss, 0, f"{place}.z_loss")

    def row_arrays(self, row_length: int, slots: int) -> dict[str, jax.ShapeDtypeStruct]:
        """`[T]` each."""
        return token_arrays(row_length, "loss_mask")

    def count(self, batch: Batch) -> jax.Array:
        """Number of targets that count."""
        return jnp.sum(batch["loss_mask"], dtype=jnp.float32)

    def sums(self, params: Params, frozen: Frozen, batch: Batch, *, network: Network) -> LossSums:
        """Sums over the targets that count."""
        hidden = network.hidden(params, batch["tokens"], batch["segment_ids"])
        head = output_head(params, config=network.config)
        log_probs, normalisers = network.token_log_probs(hidden, head, batch["targets"])
        negative = -jnp.sum(jnp.where(batch["loss_mask"], log_probs, 0.0))
        squared = jnp.sum(jnp.where(batch["loss_mask"], jnp.square(normalisers), 0.0))
        total = negative + self.z_loss * squared if self.z_loss else negative
        count = self.count(batch)
        return LossSums(total, {"loss": (negative, count), "z_loss": (squared, count)})
