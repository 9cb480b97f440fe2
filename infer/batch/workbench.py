"""What every way to answer a job works with: its rows, and the places where finished ones go."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from infer.batch.job import Job
from infer.batch.mesh_peers import MeshPeers
from infer.batch.part_file import PartWriter
from infer.batch.progress import BatchProgress
from infer.batch.row_supply import RowSupply
from infer.batch.row_table import RowTable
from infer.batch.schedule import schedule
from infer.batch.stop_signals import StopSignals


@dataclass(frozen=True)
class Workbench:
    """Attributes:
    table: of the input.
    supply: the rows; None in a process of a mesh that does not decide (see `MeshPeers`).
    writer: where finished rows go; None likewise.
    peers: the processes of the mesh, often this one alone.
    progress: is told of each.
    stop: whether to end.
    """

    table: RowTable
    supply: RowSupply | None
    writer: PartWriter | None
    peers: MeshPeers
    progress: BatchProgress
    stop: StopSignals


@contextmanager
def workbench(
    job: Job, table: RowTable, *, say: Callable[[str], None], quiet: bool
) -> Iterator[Workbench]:
    """Of a job that is opened and not finished, shared with whoever else works on it.

    Args:
      say: told what was found of an earlier start.
    """
    peers = MeshPeers()
    supply = RowSupply(job, table, schedule(table)) if peers.is_first else None
    if supply is not None:
        for path, num_bytes in supply.leftovers.items():
            say(f"{path}: its last line is not whole ({num_bytes:,} bytes): left aside")
        if rows_done := supply.share_done()[0]:
            say(f"going on: {rows_done:,} of {len(table):,} rows are finished")
        if not job.claims.has_locks:
            say(
                f"{job.parts}: its file system has no locks; a second process would answer the "
                "same rows again"
            )
    writer = PartWriter(job.parts) if peers.is_first else None
    progress = BatchProgress(len(table), quiet=quiet, speaks=peers.is_first)
    with StopSignals() as stop, progress:
        yield Workbench(table, supply, writer, peers, progress, stop)
    if writer is not None:
        writer.close()
