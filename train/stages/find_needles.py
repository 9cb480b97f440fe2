"""Which needles a model finds: one sharded forward pass over rows of the stage's full length.

Logits are wanted at the answer's tokens only, a dozen of a row's 131,072, so their hidden states
are taken out first: `[B, T, V]` never exists.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from llama_jax.model import Params, logits
from sharding.placement import batch_sharding, replicated
from train.network import Network
from train.stages.needle import NeedleRows

Batch = dict[str, jax.Array]


def find_needles(
    network: Network, params: Params, rows: NeedleRows, mesh: Mesh
) -> tuple[bool, ...]:
    """Whether the needle of each row is found, in the order of `rows`.

    To be called by all processes, on the mesh (`sharding.placement.on_mesh`).

    Args:
      params: on `mesh`.
    """
    sharding = batch_sharding(mesh)
    # As many rows at once as the mesh has parts for: at 128K tokens, one a part is what fits.
    probe = sharding.num_devices
    batch_rows = probe // sharding.shard_shape((1, probe, probe))[1]
    found = []
    for first in range(0, len(rows), batch_rows):
        batch = needle_batch(rows, first, batch_rows)
        placed = {
            name: jax.make_array_from_callback(values.shape, sharding, values.__getitem__)
            for name, values in batch.items()
        }
        answered = _answers_right(params, placed, network, mesh, rows.max_answer_tokens)
        found += np.asarray(jax.device_get(answered)).tolist()
    return tuple(found[: len(rows)])


def needle_batch(rows: NeedleRows, first: int, batch_rows: int) -> dict[str, np.ndarray]:
    """Rows `first` and on in the layout of a training batch, `[1, batch_rows, T]`; `loss_mask` is
    where the answers are. Rows past the last are empty."""
    shape = (1, batch_rows, rows.row_length)
    batch = {name: np.zeros(shape, np.int32) for name in ("tokens", "targets", "segment_ids")}
    batch["loss_mask"] = np.zeros(shape, bool)
    for place, index in enumerate(range(first, min(first + batch_rows, len(rows)))):
        row = rows[index]
        batch["tokens"][0, place], batch["targets"][0, place] = row.tokens[:-1], row.tokens[1:]
        batch["segment_ids"][0, place] = 1
        batch["loss_mask"][0, place] = row.answer_mask
    return batch


@functools.partial(jax.jit, static_argnames=("network", "mesh", "max_answer_tokens"))
def _answers_right(
    params: Params, batch: Batch, network: Network, mesh: Mesh, max_answer_tokens: int
) -> jax.Array:
    """bool `[B]`: whether every token of the row's answer is the likeliest one."""
    rows = {name: values[0] for name, values in batch.items()}  # the one micro-batch
    hidden = network.hidden(params, rows["tokens"], rows["segment_ids"])  # [B, T, D]
    mask = rows["loss_mask"]
    # Token k of the answer stands at one position t. As a product with 0 and 1, which is exact,
    # each device takes what it has of the row, and nobody gathers the whole of it.
    place = jnp.cumsum(mask, axis=1) - 1
    is_place = mask[:, None] & (
        place[:, None] == jnp.arange(max_answer_tokens)[:, None]
    )  # [B, K, T]
    answers = jnp.einsum("BKT,BTD->BKD", is_place.astype(hidden.dtype), hidden)
    scores = logits(params, answers, config=network.config)  # [B, K, V]
    wanted = jnp.sum(jnp.where(is_place, rows["targets"][:, None], 0), axis=2)  # [B, K]
    right = jnp.argmax(scores, axis=-1) == wanted
    found = jnp.all(right | ~jnp.any(is_place, axis=2), axis=1)
    return jax.lax.with_sharding_constraint(found, replicated(mesh))  # every process asks
