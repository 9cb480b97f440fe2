"""The loss on held-out rows: the same rows in the same batches every time, on any mesh.

Each set is prepared like training data and may have a row length of its own. It is measured by the
loss that training uses, or by one of its own: text, say, by cross-entropy while a model is trained
on preferences.
"""

import functools
from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import Mesh

from llama_jax.errors import InputError
from llama_jax.model import Params
from sharding.placement import batch_sharding
from train.config import BatchStep, EvaluationSet
from train.data.batch_schedule import BatchSchedule
from train.data.loader import Batch, Loader
from train.data.packed_rows import PackedRows
from train.data.row_range import RowRange
from train.losses.loss import Frozen, Loss
from train.network import Network


def evaluate(
    network: Network,
    params: Params,
    sets: Sequence[EvaluationSet],
    mesh: Mesh,
    *,
    loss: Loss,
    frozen: Frozen,
    tokenizer_sha256: str | None = None,
    reference_sha256: str | None = None,
) -> dict[str, float]:
    """Mean loss of each set: name -> loss, in the order of `sets`, and `name/metric` for what the
    loss shows of held-out rows beside it.

    To be called by all processes, on the mesh (`sharding.placement.on_mesh`).

    Args:
      params: on `mesh`.
      loss: of the sets that have none of their own.
      frozen: what `loss` reads beside `params`, on `mesh`.
      tokenizer_sha256: that the sets must have been prepared with; None takes any.
      reference_sha256: of the policy whose stored log-probabilities pairs are to have, if the loss
        wants them.

    Raises `InputError` if a set is missing, too short, of another tokenizer, or if its rows are
    longer than the model's context or do not divide among the devices.
    """
    losses = {}
    for held_out in sets:
        by_loss = held_out.loss or loss
        reference = reference_sha256 if by_loss.reference == "stored" else None
        rows = _held_out_rows(
            held_out, tokenizer_sha256=tokenizer_sha256, reference_sha256=reference
        )
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
                sums.append(_sums(params, frozen, batch, network, by_loss))
                jax.block_until_ready(sums[-2:-1])  # one batch ahead of the devices, not all
        total = jax.tree.map(lambda *parts: np.sum(parts, dtype=np.float64), *jax.device_get(sums))
        if not total["loss"][1]:
            raise InputError(
                f"evaluation set {held_out.name}: its rows have no {by_loss.counts} that count; "
                "prepare other data"
            )
        means = {name: float(top / bottom) for name, (top, bottom) in total.items()}
        losses[held_out.name] = means["loss"]
        losses |= {f"{held_out.name}/{name}": means[name] for name in by_loss.held_out}
    return losses


def _held_out_rows(held_out: EvaluationSet, **expected: str | None) -> RowRange:
    """The first rows of a prepared folder. Raises `InputError` if the folder is missing, too short
    or not what is `expected`."""
    rows = PackedRows(held_out.path, **expected)
    if not 1 <= held_out.num_rows <= len(rows):
        raise InputError(
            f"evaluation set {held_out.name}: num_rows must be from 1 to the {len(rows)} rows of "
            f"{held_out.path}, not {held_out.num_rows}"
        )
    return RowRange(rows, 0, held_out.num_rows)


@functools.partial(jax.jit, static_argnames=("network", "loss"))
def _sums(
    params: Params, frozen: Frozen, batch: Batch, network: Network, loss: Loss
) -> dict[str, tuple[jax.Array, jax.Array]]:
    """Numerator and denominator of the metrics that are shown, float32 scalars."""
    rows = {name: values[0] for name, values in batch.items()}  # the one micro-batch
    params = network.assemble(params, frozen)
    metrics = loss.sums(params, frozen, rows, network=network).metrics
    return {name: metrics[name] for name in ("loss", *loss.held_out)}
