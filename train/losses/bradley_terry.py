"""The loss of a reward model: the better of two answers to one prompt shall have the higher reward.

    loss of a comparison = -log sigmoid(reward of the better - reward of the worse)

Llama 3 ranks edited over chosen over rejected answers, puts all answers to a prompt into one row
after it, in random order, and has no margin in the loss (arXiv 2407.21783, section 4.1.2): every
two answers of one group with different ranks are a comparison. The reward of an answer is the
product of the hidden state at its last token with the parameter `reward_head`.

Letters: B rows, T tokens, E answers of a row (at most).
"""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp

from llama_jax.model import Params, rewards
from train.losses.loss import Batch, Frozen, LossSums, sums_over, token_arrays
from train.network import Network


@dataclass(frozen=True)
class BradleyTerry:
    """Mean loss of a comparison, in nats.

    The batch has `tokens` and `segment_ids` `[A, B, T]`, and int32 `[A, B, E]` `answer_ends` (index
    of the last token of an answer; -1: there is none), `answer_groups` (which prompt of the row it
    answers) and `answer_ranks` (0 is the best).

    Metrics: `loss`, `accuracy` (how often the better answer has the higher reward), `reward_chosen`
    and `reward_rejected` (mean reward of the better and of the worse one), `margin` (their
    difference).
    """

    counts: ClassVar[str] = "comparisons"
    held_out: ClassVar[tuple[str, ...]] = ("accuracy", "margin")
    row_kinds: ClassVar[tuple[str, ...]] = ("groups",)
    of_rewards: ClassVar[bool] = True
    has_teacher: ClassVar[bool] = False
    reference: ClassVar[str] = "none"

    def check(self, place: str) -> None:
        """It has no numbers."""

    def row_arrays(self, row_length: int, slots: int) -> dict[str, jax.ShapeDtypeStruct]:
        """`[T]` each, and `[E]`."""
        of_answers = jax.ShapeDtypeStruct((slots,), jnp.int32)
        names = ("answer_ends", "answer_groups", "answer_ranks")
        return {**token_arrays(row_length), **dict.fromkeys(names, of_answers)}

    def count(self, batch: Batch) -> jax.Array:
        """Number of comparisons."""
        return jnp.sum(is_comparison(batch), dtype=jnp.float32)

    def sums(self, params: Params, frozen: Frozen, batch: Batch, *, network: Network) -> LossSums:
        """Sums over the comparisons."""
        hidden = network.hidden(params, batch["tokens"], batch["segment_ids"])
        of_answers = at_ends(rewards(params, hidden, config=network.config), batch["answer_ends"])
        better, worse = jnp.broadcast_arrays(of_answers[:, :, None], of_answers[:, None, :])
        margin = better - worse  # [B, E, E]
        values = {
            "loss": -jax.nn.log_sigmoid(margin),
            "accuracy": margin > 0,
            "reward_chosen": better,
            "reward_rejected": worse,
            "margin": margin,
        }
        return sums_over(is_comparison(batch), values)


def is_comparison(batch: Batch) -> jax.Array:
    """bool `[..., E, E]`: whether the first answer is better than the second, of the same group."""
    ends, groups, ranks = (batch[f"answer_{name}"] for name in ("ends", "groups", "ranks"))
    there = ends >= 0
    same_group = groups[..., :, None] == groups[..., None, :]
    better = ranks[..., :, None] < ranks[..., None, :]
    return there[..., :, None] & there[..., None, :] & same_group & better


def at_ends(values: jax.Array, answer_ends: jax.Array) -> jax.Array:
    """`[B, E]`: what `values` `[B, T]` are at `answer_ends` int32 `[B, E]`, 0 where that is -1.

    Written as a sum over the row with one term, so that each device of a mesh looks at the tokens
    it has.
    """
    is_end = answer_ends[:, :, None] == jnp.arange(values.shape[1])  # [B, E, T]
    return jnp.sum(jnp.where(is_end, values[:, None, :], 0.0), axis=-1)
