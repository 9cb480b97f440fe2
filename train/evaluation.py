"""The loss on held-out rows: the same rows in the same batches every time, on any mesh.

Each set is prepared like training data and may have a row length of its own. The number is the mean
negative log-probability of its targets, in nats a token, by the loss that training uses; without
the z-loss, so that runs with and without it compare.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from llama_jax.errors import InputError
from llama_jax.model import Params
from sharding.placement import batch_sharding
from train.config import BatchStep, EvaluationSet
from train.data.batch_schedule import BatchSchedule
from train.data.loader import Batch, Loader
from train.data.packed_rows import PackedRows
from train.data.row import Row
from train.losses.cross_entropy import cross_entropy
from train.network import Network


def evaluate(
    network: Network,
    params: Params,
    sets: Sequence[EvaluationSet],
    mesh: Mesh,
    *,
    tokenizer_sha256: str | None = None,
) -> dict[str, float]:
    """Mean loss of each set, in nats a token: name -> loss, in the order of `sets`.

    To be called by all processes, on the mesh (`sharding.placement.on_mesh`).

    Args:
      params: on `mesh`.
      tokenizer_sha256: that the sets must have been prepared with; None takes any.

    Raises `InputError` if a set is missing, too short, of another tokenizer, or if its rows are
    longer than the model's context or do not divide among the devices.
    """
    losses = {}
    for held_out in sets:
        rows = HeldOutRows(held_out, tokenizer_sha256=tokenizer_sha256)
        if rows.row_length > network.config.context_length:
            raise InputError(
                f"evaluation set {held_out.name}: its rows of {rows.row_length} tokens are longer "
                f"than the model's context_length {network.config.context_length}"
            )
        loader = Loader(
            rows,
            BatchSchedule((BatchStep(0, held_out.batch_rows),), row_length=rows.row_length),
            sharding=batch_sharding(mesh),
            first_step=0,
            num_steps=-(-held_out.num_rows // held_out.batch_rows),
        )
        sums = []
        with loader:
            for batch in loader:
                sums.append(_loss_and_count(params, batch, network))
                jax.block_until_ready(sums[-2:-1])  # one batch ahead of the devices, not all
        total, count = np.sum(np.asarray(jax.device_get(sums), np.float64), axis=0)
        if not count:
            raise InputError(
                f"evaluation set {held_out.name}: its rows have no token to predict; prepare other "
                "text"
            )
        losses[held_out.name] = float(total / count)
    return losses


class HeldOutRows:
    """The first `num_rows` rows of a prepared folder, and after them empty rows, which fill up the
    last batch and count nothing. A `Loader` reads them like a mixture.

    Attributes:
      row_length: tokens that a row predicts.
    """

    def __init__(self, held_out: EvaluationSet, *, tokenizer_sha256: str | None = None) -> None:
        """Raises `InputError` if the folder is missing, of another tokenizer or too short."""
        self._rows = PackedRows(held_out.path, tokenizer_sha256=tokenizer_sha256)
        self._num_rows = held_out.num_rows
        self.row_length = self._rows.manifest.row_length
        if not 1 <= held_out.num_rows <= len(self._rows):
            raise InputError(
                f"evaluation set {held_out.name}: num_rows must be from 1 to the {len(self._rows)} "
                f"rows of {held_out.path}, not {held_out.num_rows}"
            )

    def __getitem__(self, index: int) -> Row:
        if index < self._num_rows:
            return self._rows[index]
        return Row(*np.zeros((2, self.row_length + 1), np.int32))


@functools.partial(jax.jit, static_argnames="network")
def _loss_and_count(params: Params, batch: Batch, network: Network) -> tuple[jax.Array, jax.Array]:
    """Sum of the negative log-probabilities and number of the targets that count, float32."""
    rows = {name: values[0] for name, values in batch.items()}  # the one micro-batch
    sums = cross_entropy(params, rows, network=network, z_loss=0.0)
    return sums.negative_log_prob, jnp.sum(rows["loss_mask"], dtype=jnp.float32)
