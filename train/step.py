"""One optimiser step: gradients over micro-batches, clipping, AdamW, and the right to refuse.

Gradients have the dtype of the parameters, float32 by default, are summed in float32 over
micro-batches, and are float32 from there on. A step whose loss, gradient or update is not finite,
or whose gradient norm leaps over the running mean, changes nothing but the counters.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from train.config import OptimizerConfig
from train.losses.loss import Batch, Frozen, Loss
from train.network import Network
from train.optimizer import make_optimizer
from train.state import TrainState

# Weight of the past in the running mean of gradient norms: about the last hundred steps.
NORM_MEMORY = 0.99

Metrics = dict[str, jax.Array]


def make_train_step(
    network: Network,
    optimizer_config: OptimizerConfig,
    learning_rate: Callable[[jax.Array], jax.Array],
    *,
    loss: Loss,
    state: TrainState,
) -> Callable[[TrainState, Frozen, Batch], tuple[TrainState, Metrics]]:
    """The jitted step `(state, frozen, batch) -> (state, metrics)`; the given state is donated.

    Args:
      learning_rate: of the step, counted over the run.
      loss: what is minimised; it says which arrays the batch has, `[A, B, ...]` for A micro-batches
        of B rows, and what `frozen` holds.
      state: abstract or real; its shardings are those of the result.

    Metrics are float32 scalars: those of the loss, how many tokens, pairs or the like it counted,
    under that name, `gradient_norm` before clipping, `update_norm`, `parameter_norm`,
    `learning_rate`, `skipped` (0 or 1), `skipped_in_a_row`.
    """
    optimizer = make_optimizer(optimizer_config)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, state)

    def train_step(state: TrainState, frozen: Frozen, batch: Batch) -> tuple[TrainState, Metrics]:
        count = loss.count(batch)

        def mean_loss(params, micro_batch):
            whole = network.assemble(params, frozen)
            sums = loss.sums(whole, frozen, micro_batch, network=network)
            return sums.total / jnp.maximum(count, 1.0), sums.metrics

        def gradient(params, micro_batch):
            gradients, sums = jax.grad(mean_loss, has_aux=True)(params, micro_batch)
            # Said here, so that the sum over micro-batches is of parts and never of whole ones.
            return jax.lax.with_sharding_constraint(gradients, shardings.params), sums

        gradients, sums = _sum_over_micro_batches(gradient, state.params, batch)
        of_loss = {name: top / bottom for name, (top, bottom) in sums.items()}
        norm = optax.tree.norm(gradients)
        directions, optimizer_state = optimizer.update(
            gradients, state.optimizer_state, state.params
        )
        rate = learning_rate(state.step)
        updates = jax.tree.map(lambda direction: -rate * direction, directions)
        update_norm = optax.tree.norm(updates)
        params = optax.apply_updates(state.params, updates)

        accepted = jnp.isfinite(of_loss["loss"]) & jnp.isfinite(norm) & jnp.isfinite(update_norm)
        if optimizer_config.spike_factor is not None:
            limit = optimizer_config.spike_factor * state.norm_average
            accepted &= (state.norm_average == 0.0) | (norm <= limit)
        average = jnp.where(
            state.norm_average == 0.0,
            norm,
            NORM_MEMORY * state.norm_average + (1 - NORM_MEMORY) * norm,
        )
        kept = jax.tree.map(
            lambda new, old: jnp.where(accepted, new, old),
            (params, optimizer_state, average),
            (state.params, state.optimizer_state, state.norm_average),
        )
        refused = (~accepted).astype(jnp.int32)
        in_a_row = (state.skipped_in_a_row + 1) * refused
        new_state = TrainState(
            step=state.step + 1,
            params=kept[0],
            optimizer_state=kept[1],
            norm_average=kept[2],
            skipped=state.skipped + refused,
            skipped_in_a_row=in_a_row,
        )
        metrics = {
            **of_loss,
            "gradient_norm": norm,
            "update_norm": update_norm,
            "parameter_norm": optax.tree.norm(state.params),
            "learning_rate": rate,
            loss.counts: count,
            "skipped": refused,
            "skipped_in_a_row": in_a_row,
        }
        return new_state, {name: value.astype(jnp.float32) for name, value in metrics.items()}

    return jax.jit(train_step, donate_argnums=0, out_shardings=(shardings, shardings.step))


def _sum_over_micro_batches(gradient, params, batch: Batch):
    """Gradients and sums of metrics, added up over the leading dimension of `batch`."""
    num_micro_batches = batch["tokens"].shape[0]
    if num_micro_batches == 1:
        gradients, sums = gradient(params, jax.tree.map(lambda x: x[0], batch))
        return optax.tree.cast(gradients, jnp.float32), sums

    def add(total, micro_batch):
        return jax.tree.map(jnp.add, total, gradient(params, micro_batch)), None

    of_one = jax.eval_shape(gradient, params, jax.tree.map(lambda x: x[0], batch))
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.float32), of_one)
    return jax.lax.scan(add, zeros, batch)[0]
