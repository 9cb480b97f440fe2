"""Distillation of a teacher's next-token distributions into a student.

    loss of a target = (1 - label_weight) * temperature^2 * divergence + label_weight * nll

    forward divergence = KL(teacher || student) = sum over words of p_T * (log p_T - log p_S)
    reverse divergence = KL(student || teacher) = sum over words of p_S * (log p_S - log p_T)

p_T and p_S are the softmax of the logits over `temperature`; nll is the negative log-probability of
the target itself, at temperature 1. It is the loss of Hinton, Vinyals and Dean (arXiv 1503.02531,
section 2): a weighted mean of the two, the first times temperature^2, which keeps their gradients
in proportion whatever the temperature is. Their divergence is the forward one, which makes a
student cover all that its teacher may say; the reverse one, for which MiniLLM argues (arXiv
2306.08543, section 2.1), makes it leave out what the teacher would not say. MiniLLM's is of whole
answers that the student samples; here it is of each next token after the data's own words, as GKD
writes it (arXiv 2306.13649, section 3).

The teacher lies in memory, beside the student, and the divergences are those over the whole
vocabulary (`divergences.py`); or what it says was stored beside the data before the stage began:
the K = `top_k` most probable words of each target and K + 1 log-probabilities, the last that of all
other words together (`bucket_logits.py`). Then the divergences are those of K + 1 buckets, into
which the student's words are sorted too. No mass is dropped and none is scaled up, so both are at
most the ones over the vocabulary, and equal where the student spreads the rest as the teacher does
(the log sum inequality); with K = V they are the same.

Letters: B rows, T tokens, K words of a target.
"""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp

from llama_jax.errors import InputError
from llama_jax.model import Params, output_head
from train.field_checks import at_least, positive, require
from train.losses.bucket_logits import bucket_logits
from train.losses.divergences import divergences
from train.losses.loss import Batch, Frozen, LossSums, sums_over, token_arrays
from train.losses.top_tokens import top_tokens
from train.network import Network

DIRECTIONS = ("forward", "reverse")
REFERENCES = ("stored", "in_memory")


@dataclass(frozen=True)
class Distillation:
    """Mean loss of a target, in nats.

    The batch has `tokens`, `targets`, `segment_ids` and `loss_mask` `[A, B, T]`, and where the
    teacher is stored `teacher_tokens` int32 `[A, B, T, K]` and `teacher_log_probs` float32
    `[A, B, T, K + 1]`. A target takes 8 K + 4 bytes of disk, whether it counts or not.

    Metrics: `loss`, `forward_kl` and `reverse_kl` (nats a target, at `temperature`), and with a
    `label_weight` `nll`.

    Attributes:
      reference: where what the teacher says comes from: `stored`, or `in_memory`, for which it lies
        beside the student and reads every batch.
      top_k: words of a target that are stored; None in memory, where all count.
      direction: of the divergence, `forward` or `reverse`.
      temperature: that divides both models' logits.
      label_weight: share of the targets' own likelihood in the loss, from 0 to below 1.
    """

    reference: str
    top_k: int | None = None
    direction: str = "forward"
    temperature: float = 1.0
    label_weight: float = 0.0

    counts: ClassVar[str] = "tokens"
    held_out: ClassVar[tuple[str, ...]] = ("forward_kl", "reverse_kl")
    row_kinds: ClassVar[tuple[str, ...]] = ("text", "dialogs")
    of_rewards: ClassVar[bool] = False
    has_teacher: ClassVar[bool] = True

    def check(self, place: str) -> None:
        """Raises `InputError` for a number or a name that cannot be."""
        for field, known in (("reference", REFERENCES), ("direction", DIRECTIONS)):
            value = getattr(self, field)
            said = f"must be one of {', '.join(known)}, not {value!r}"
            require(value in known, f"{place}.{field}", said)
        if self.reference == "stored":
            require(self.top_k is not None, f"{place}.top_k", "say how many words are stored")
            at_least(self.top_k, 1, f"{place}.top_k")
        else:
            said = "must be None in memory, where all words count"
            require(self.top_k is None, f"{place}.top_k", said)
        positive(self.temperature, f"{place}.temperature")
        at_least(self.label_weight, 0, f"{place}.label_weight")
        require(self.label_weight < 1, f"{place}.label_weight", "must be below 1")

    def row_arrays(self, row_length: int, slots: int) -> dict[str, jax.ShapeDtypeStruct]:
        """`[T]` each, `[T, K]` and `[T, K + 1]`."""
        arrays = token_arrays(row_length, "loss_mask")
        stored = self.reference == "stored"
        return arrays | self.reference_arrays(row_length, slots) if stored else arrays

    @property
    def reference_key(self) -> tuple[str | float, ...]:
        """The words that are asked for and the temperature, which cannot be changed afterwards."""
        return ("teacher", self.top_k or 0, float(self.temperature))

    def reference_arrays(self, row_length: int, slots: int) -> dict[str, jax.ShapeDtypeStruct]:
        """`teacher_tokens` `[T, K]` and `teacher_log_probs` `[T, K + 1]`."""
        words = jax.ShapeDtypeStruct((row_length, self.top_k), jnp.int32)
        log_probs = jax.ShapeDtypeStruct((row_length, self.top_k + 1), jnp.float32)
        return {"teacher_tokens": words, "teacher_log_probs": log_probs}

    def ask_reference(
        self, params: Params, batch: Batch, slots: int, *, network: Network
    ) -> dict[str, jax.Array]:
        """`[B, T, K]` and `[B, T, K + 1]`, by the teacher `params`."""
        teacher = network.of_teacher()
        hidden = teacher.hidden(params, batch["tokens"], batch["segment_ids"])
        head = output_head(params, config=teacher.config)
        words = network.sharded_log_probs(top_tokens, count=self.top_k)(hidden, head)
        log_probs = self._bucket_log_probs(hidden, head, words, network=network)
        return {"teacher_tokens": words, "teacher_log_probs": log_probs}

    def count(self, batch: Batch) -> jax.Array:
        """Number of targets that count."""
        return jnp.sum(batch["loss_mask"], dtype=jnp.float32)

    def sums(self, params: Params, frozen: Frozen, batch: Batch, *, network: Network) -> LossSums:
        """Sums over the targets that count."""
        hidden = network.hidden(params, batch["tokens"], batch["segment_ids"])
        head = output_head(params, config=network.config)
        if self.reference == "stored":
            forward, reverse = self._from_stored(hidden, head, batch, network=network)
        else:
            forward, reverse = self._from_memory(hidden, head, frozen, batch, network=network)
        values = {"forward_kl": forward, "reverse_kl": reverse}
        losses = self.temperature**2 * values[f"{self.direction}_kl"]
        if self.label_weight:
            values["nll"] = -network.token_log_probs(hidden, head, batch["targets"])[0]
            losses = (1 - self.label_weight) * losses + self.label_weight * values["nll"]
        return sums_over(batch["loss_mask"], {"loss": losses, **values})

    def _from_memory(
        self, hidden: jax.Array, head: jax.Array, frozen: Frozen, batch: Batch, *, network: Network
    ) -> tuple[jax.Array, jax.Array]:
        """Forward and reverse divergence over the vocabulary, `[B, T]`."""
        teacher, params = network.of_teacher(), frozen["reference"]
        teacher_hidden = teacher.hidden(params, batch["tokens"], batch["segment_ids"])
        teacher_head = output_head(params, config=teacher.config)
        of_both = network.sharded_log_probs(divergences, num_models=2, temperature=self.temperature)
        return of_both(hidden, head, teacher_hidden, teacher_head)

    def _from_stored(
        self, hidden: jax.Array, head: jax.Array, batch: Batch, *, network: Network
    ) -> tuple[jax.Array, jax.Array]:
        """Forward and reverse divergence of the buckets, `[B, T]`."""
        if "teacher_log_probs" not in batch:
            raise InputError(
                "loss.reference is stored, and the rows have no teacher_log_probs; give in_memory"
            )
        teacher = batch["teacher_log_probs"]
        student = self._bucket_log_probs(hidden, head, batch["teacher_tokens"], network=network)
        return (
            jnp.sum(jnp.exp(teacher) * (teacher - student), axis=-1),
            jnp.sum(jnp.exp(student) * (student - teacher), axis=-1),
        )

    def _bucket_log_probs(
        self, hidden: jax.Array, head: jax.Array, words: jax.Array, *, network: Network
    ) -> jax.Array:
        """float32 `[B, T, K + 1]`."""
        of_buckets = network.sharded_log_probs(bucket_logits, temperature=self.temperature)
        return jax.nn.log_softmax(of_buckets(hidden, head, words))
