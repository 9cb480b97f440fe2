"""Direct preference optimisation (arXiv 2305.18290) over packed pairs of answers.

    loss of a pair = -log sigmoid(beta * margin) + nll_coefficient * nll
    margin         = log-ratio of the chosen answer - log-ratio of the rejected one
    log-ratio      = log p(answer) by the policy - log p(answer) by the reference

As Llama 3 does it (arXiv 2407.21783, section 4.1.4): beta 0.1; the tokens that format an answer,
which both answers have and which would pull against each other, are masked in both (`loss_mask`,
see `answer_pairs.py`); and 0.2 times the negative log-likelihood of the chosen answer is added,
which keeps its probability from falling. That term is a mean over the answer's own tokens, as in
arXiv 2404.19733, so that a long answer weighs no more than a short one, and the token that ends the
turn is among them (`nll_mask`).
"""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp

from llama_jax.errors import InputError
from llama_jax.model import Params
from train.field_checks import at_least, positive, require
from train.losses.answer_pairs import (
    answer_log_probs,
    count_pairs,
    most_pairs,
    sum_answers,
    target_log_probs,
)
from train.losses.loss import Batch, Frozen, LossSums, sums_over, token_arrays
from train.network import Network

FORMS = ("sigmoid", "ipo", "robust")
REFERENCES = ("stored", "in_memory", "none")


@dataclass(frozen=True)
class Dpo:
    """Mean loss of a pair, in nats.

    The batch has `tokens`, `targets`, `segment_ids`, `loss_mask` and `nll_mask` `[A, B, T]`, and
    `reference_log_probs` float32 `[A, B, P, 2]` where the reference is stored.

    Metrics: `loss`, its parts `preference_loss` and `nll` (nats a token), `accuracy` (how often the
    chosen answer has the higher reward), `reward_chosen`, `reward_rejected` (beta times log-ratio),
    `margin` (their difference), `log_prob_chosen`, `log_prob_rejected` (nats an answer), and with a
    reference `reference_kl`: the mean log-ratio of all answers, which estimates the divergence from
    the reference so far as the answers are the policy's own.

    Attributes:
      beta: how much a nat of log-ratio counts.
      form: `sigmoid`; `ipo`, the squared distance of the margin from 1 / (2 beta)
        (arXiv 2310.12036), whose authors mean it with `length_normalized`; or `robust`, unbiased
        where a share `label_smoothing` of the pairs is the wrong way round (arXiv 2403.00409).
      reference: `stored` beside the data, before the stage begins; `in_memory`, computed in each
        step, for which a second model lies beside the first; or `none`, which leaves the reference
        out of the log-ratio.
      label_smoothing: share of pairs that are taken to be the wrong way round. In the sigmoid form
        it is the conservative loss, which stops short of certainty.
      length_normalized: whether log-ratios are means over an answer's tokens and not sums.
      nll_coefficient: weight of the chosen answer's negative log-likelihood; 0 leaves it out.
    """

    beta: float = 0.1
    form: str = "sigmoid"
    reference: str = "stored"
    label_smoothing: float = 0.0
    length_normalized: bool = False
    nll_coefficient: float = 0.2

    counts: ClassVar[str] = "pairs"
    held_out: ClassVar[tuple[str, ...]] = ("accuracy", "margin")
    row_kinds: ClassVar[tuple[str, ...]] = ("pairs",)
    of_rewards: ClassVar[bool] = False
    has_teacher: ClassVar[bool] = False

    def check(self, place: str) -> None:
        """Raises `InputError` for a number or a name that cannot be."""
        positive(self.beta, f"{place}.beta")
        for field, known in (("form", FORMS), ("reference", REFERENCES)):
            value = getattr(self, field)
            said = f"must be one of {', '.join(known)}, not {value!r}"
            require(value in known, f"{place}.{field}", said)
        smoothing = f"{place}.label_smoothing"
        at_least(self.label_smoothing, 0, smoothing)
        require(self.label_smoothing < 0.5, smoothing, "must be below 0.5")
        require(
            self.form != "ipo" or not self.label_smoothing, smoothing, "has no meaning in form ipo"
        )
        at_least(self.nll_coefficient, 0, f"{place}.nll_coefficient")

    def row_arrays(self, row_length: int, slots: int) -> dict[str, jax.ShapeDtypeStruct]:
        """`[T]` each, and `[P, 2]`."""
        arrays = token_arrays(row_length, "loss_mask", "nll_mask")
        stored = self.reference == "stored"
        return arrays | self.reference_arrays(row_length, slots) if stored else arrays

    @property
    def reference_key(self) -> tuple[str | float, ...]:
        """The data says which targets count."""
        return ("answers",)

    def reference_arrays(self, row_length: int, slots: int) -> dict[str, jax.ShapeDtypeStruct]:
        """`reference_log_probs` `[P, 2]`, of chosen and rejected; 0 where there is no pair."""
        return {"reference_log_probs": jax.ShapeDtypeStruct((slots, 2), jnp.float32)}

    def ask_reference(
        self, params: Params, batch: Batch, slots: int, *, network: Network
    ) -> dict[str, jax.Array]:
        """`[B, P, 2]`."""
        return {"reference_log_probs": answer_log_probs(params, batch, slots, network=network)}

    def count(self, batch: Batch) -> jax.Array:
        """Number of pairs."""
        return jnp.sum(count_pairs(batch["segment_ids"]), dtype=jnp.float32)

    def sums(self, params: Params, frozen: Frozen, batch: Batch, *, network: Network) -> LossSums:
        """Sums over the pairs."""
        num_pairs, segment_ids = most_pairs(batch), batch["segment_ids"]
        is_pair = jnp.arange(num_pairs) < count_pairs(segment_ids)[:, None]  # [B, P]
        token_log_probs = target_log_probs(params, batch, network=network)

        def sum_masked(mask: jax.Array) -> tuple[jax.Array, jax.Array]:
            """Log-probability and number of the targets of each answer in `mask`, `[B, P, 2]`."""
            log_probs = jnp.where(mask, token_log_probs, 0.0)
            return (
                sum_answers(log_probs, segment_ids, num_pairs),
                sum_answers(mask, segment_ids, num_pairs),
            )

        log_probs, lengths = sum_masked(batch["loss_mask"])
        reference = self._reference(frozen, batch, num_pairs, network=network)
        ratios = log_probs - reference
        if self.length_normalized:
            ratios /= jnp.maximum(lengths, 1.0)
        losses = preference = self.of_margin(ratios[..., 0] - ratios[..., 1])
        rewards = self.beta * ratios
        values = {
            "preference_loss": preference,
            "accuracy": rewards[..., 0] > rewards[..., 1],
            "reward_chosen": rewards[..., 0],
            "reward_rejected": rewards[..., 1],
            "margin": rewards[..., 0] - rewards[..., 1],
            "log_prob_chosen": log_probs[..., 0],
            "log_prob_rejected": log_probs[..., 1],
        }
        if self.reference != "none":
            values["reference_kl"] = jnp.mean(log_probs - reference, axis=-1)
        if self.nll_coefficient:
            nll_sums, nll_lengths = sum_masked(batch["nll_mask"])
            values["nll"] = -nll_sums[..., 0] / jnp.maximum(nll_lengths[..., 0], 1.0)
            losses = preference + self.nll_coefficient * values["nll"]
        return sums_over(is_pair, {"loss": losses, **values})

    def of_margin(self, margin: jax.Array) -> jax.Array:
        """Loss of pairs from the difference of their log-ratios, of any shape."""
        if self.form == "ipo":
            return jnp.square(margin - 1.0 / (2.0 * self.beta))
        right = -jax.nn.log_sigmoid(self.beta * margin)
        wrong = -jax.nn.log_sigmoid(-self.beta * margin)
        share = self.label_smoothing
        if self.form == "robust":
            return ((1.0 - share) * right - share * wrong) / (1.0 - 2.0 * share)
        return (1.0 - share) * right + share * wrong if share else right

    def _reference(
        self, frozen: Frozen, batch: Batch, num_pairs: int, *, network: Network
    ) -> jax.Array:
        """Log-probability of each answer by the reference, `[B, P, 2]`, or 0 without one."""
        if self.reference == "none":
            return jnp.zeros((), jnp.float32)
        if self.reference == "in_memory":
            return answer_log_probs(frozen["reference"], batch, num_pairs, network=network)
        if "reference_log_probs" not in batch:
            raise InputError(
                "loss.reference is stored, and the rows have no reference_log_probs; give in_memory"
            )
        return batch["reference_log_probs"]
