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
from train.losses.cross_entropy import Batch, LossSums, cross_entropy
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
    z_loss: float,
    state: TrainState,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """The jitted step `(state, batch) -> (state, metrics)`; the given state is donated.

    Args:
      learning_rate: of the step, counted over the run.
      state: abstract or real; its shardings are those of the result.

    The batch is `tokens`, `targets`, `segment_ids`, `loss_mask`, each `[A, B, T]` for A
    micro-batches. Metrics are float32 scalars: `loss` in nats a token, `z_loss` (the mean squared
    log-normaliser), `gradient_norm` before clipping, `update_norm`, `parameter_norm`,
    `learning_rate`, `tokens` (valid targets), `skipped` (0 or 1), `skipped_in_a_row`.
    """
    optimizer = make_optimizer(optimizer_config)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, state)

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        count = jnp.sum(batch["loss_mask"], dtype=jnp.float32)

        def mean_loss(params, micro_batch):
            sums = cross_entropy(params, micro_batch, network=network, z_loss=z_loss)
            return sums.total / jnp.maximum(count, 1.0), sums

        def gradient(params, micro_batch):
            gradients, sums = jax.grad(mean_loss, has_aux=True)(params, micro_batch)
            # Said here, so that the sum over micro-batches is of parts and never of whole ones.
            return jax.lax.with_sharding_constraint(gradients, shardings.params), sums

        gradients, sums = _sum_over_micro_batches(gradient, state.params, batch)
        loss = sums.negative_log_prob / count
        norm = optax.tree.norm(gradients)
        directions, optimizer_state = optimizer.update(
            gradients, state.optimizer_state, state.params
        )
        rate = learning_rate(state.step)
        updates = jax.tree.map(lambda direction: -rate * direction, directions)
        update_norm = optax.tree.norm(updates)
        params = optax.apply_updates(state.params, updates)

        accepted = jnp.isfinite(loss) & jnp.isfinite(norm) & jnp.isfinite(update_norm)
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
            "loss": loss,
            "z_loss": sums.squared_normaliser / count,
            "gradient_norm": norm,
            "update_norm": update_norm,
            "parameter_norm": optax.tree.norm(state.params),
            "learning_rate": rate,
            "tokens": count,
            "skipped": refused,
            "skipped_in_a_row": in_a_row,
        }
        return new_state, {name: value.astype(jnp.float32) for name, value in metrics.items()}

    return jax.jit(train_step, donate_argnums=0, out_shardings=(shardings, shardings.step))


def _sum_over_micro_batches(gradient, params, batch: Batch):
    """Gradients and loss sums, added up over the leading dimension of `batch`."""
    num_micro_batches = batch["tokens"].shape[0]
    if num_micro_batches == 1:
        gradients, sums = gradient(params, jax.tree.map(lambda x: x[0], batch))
        return optax.tree.cast(gradients, jnp.float32), sums

    def add(total, micro_batch):
        return jax.tree.map(jnp.add, total, gradient(params, micro_batch)), None

    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.float32), params)
    zero = jnp.zeros((), jnp.float32)
    start = (zeros, LossSums(zero, zero, zero))
    return jax.lax.scan(add, start, batch)[0]
