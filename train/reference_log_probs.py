"""What a stage's reference policy or teacher says of its rows, computed before the first step and
stored beside the data: so no second model lies beside the one that is trained.

It is computed once for a model and a data set, in blocks that are kept: a run that was killed goes
on with the missing ones, and another run with the same model finds all of them
(`train/data/reference_log_probs.py`).
"""

import functools
import math
import time
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh

from llama_jax.model import Params
from sharding.placement import batch_sharding, replicated
from train.config import BatchStep
from train.data.batch_schedule import BatchSchedule
from train.data.loader import Batch, Loader
from train.data.manifest import read_manifest
from train.data.packed_rows import PackedRows
from train.data.reference_log_probs_writer import ReferenceLogProbsWriter, RowBlock
from train.data.row_range import RowRange
from train.job import Job
from train.losses.loss import ReferenceLoss
from train.network import Network
from train.process_zero import on_process_zero
from train.reference_policy import load_reference, reference_path
from train.terminal import clock_text

# Rows that are computed and kept together: so many, or as many powers of two as have so many bytes.
BLOCK_ROWS = 512
BLOCK_BYTES = 1 << 29


def store_reference(job: Job, stage: int) -> None:
    """Computes and stores what is missing of the log-probabilities that stage `stage` and its
    held-out sets read. To be called by all processes, on the mesh.

    Raises `SystemExit` after a block if the job is told to end.
    """
    sha256 = job.reference_sha256(stage)
    if sha256 is None:
        return
    config = job.run.stages[stage]
    loss, batch = config.loss, config.batch[0]
    rows_at_once = {source.path: batch.rows // batch.micro_batches for source in config.mixture}
    for held_out in job.run.evaluations:
        if (held_out.loss or loss).reference == "stored":
            rows_at_once[held_out.path] = held_out.batch_rows
    params: Params | None = None
    for path, num_rows in rows_at_once.items():
        # Process 0 makes the folder, and all then find the same blocks missing.
        on_process_zero(lambda path=path: _writer(path, loss, sha256))
        writer = _writer(path, loss, sha256)
        if writer.is_finished:
            continue
        if params is None:
            name = reference_path(job.run, stage)
            job.log.say(f"reference log-probabilities by {name}")
            params = load_reference(job.run, stage, job.mesh)
        _fill(job, stage, params, writer, path, num_rows)


def _writer(path: str | Path, loss: ReferenceLoss, sha256: str) -> ReferenceLogProbsWriter:
    manifest = read_manifest(path)
    arrays = loss.reference_arrays(manifest.row_length, manifest.slots)
    row_bytes = sum(math.prod(array.shape) * array.dtype.itemsize for array in arrays.values())
    most = 1 << max(BLOCK_BYTES // row_bytes, 1).bit_length() - 1
    return ReferenceLogProbsWriter(
        path, model_sha256=sha256, arrays=arrays, block_rows=min(BLOCK_ROWS, most)
    )


def _fill(
    job: Job,
    stage: int,
    params: Params,
    writer: ReferenceLogProbsWriter,
    path: str,
    num_rows: int,
) -> None:
    """Writes the missing blocks of the data set at `path`, `num_rows` rows at a time."""
    rows = PackedRows(path, tokenizer_sha256=job.tokenizer_sha256)
    began, done, missing = time.monotonic(), 0, list(writer.missing())
    total = sum(block.stop - block.first for block in missing)
    for block in missing:
        values = _of_block(job, stage, params, rows, block, num_rows)
        on_process_zero(lambda block=block, values=values: writer.write(block, values))
        done += block.stop - block.first
        seconds = time.monotonic() - began
        job.log.say(
            f"{path}: reference log-probabilities of {done:,} of {total:,} rows, "
            f"{done / seconds:.1f} rows/s, {clock_text((total - done) / done * seconds)} left"
        )
        if job.preemption.told_alone and done < total:
            raise SystemExit(job.preemption.exit_code)
    on_process_zero(writer.publish)


def _of_block(
    job: Job, stage: int, params: Params, rows: PackedRows, block: RowBlock, num_rows: int
) -> dict[str, np.ndarray]:
    """What is stored of the rows of a block, `[stop - first, ...]` each."""
    length = block.stop - block.first
    loss, network = job.run.stages[stage].loss, job.network(stage)
    loader = Loader(
        RowRange(rows, block.first, block.stop),
        BatchSchedule((BatchStep(0, num_rows),), row_length=rows.manifest.row_length),
        sharding=batch_sharding(job.mesh),
        first_step=0,
        num_steps=-(-length // num_rows),
    )
    parts = []
    with loader:
        for batch in loader:
            parts.append(_ask(params, batch, network, loss, rows.manifest.slots, job.mesh))
            parts[-2:-1] = jax.device_get(parts[-2:-1])  # one batch ahead of the devices, not all
    parts[-1:] = jax.device_get(parts[-1:])
    return {name: np.concatenate([part[name] for part in parts])[:length] for name in parts[0]}


@functools.partial(jax.jit, static_argnames=("network", "loss", "slots", "mesh"))
def _ask(
    params: Params, batch: Batch, network: Network, loss: ReferenceLoss, slots: int, mesh: Mesh
) -> dict[str, jax.Array]:
    """Of the rows of a batch, `[B, ...]`, on all devices alike: process 0 asks for all of it."""
    rows = {name: values[0] for name, values in batch.items()}  # the one micro-batch
    values = loss.ask_reference(params, rows, slots, network=network)
    return jax.lax.with_sharding_constraint(values, replicated(mesh))
