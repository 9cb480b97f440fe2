"""A job that is open, from wherever it is to its end or to a signal."""

from collections.abc import Callable
from dataclasses import dataclass

from infer.batch.job import Job
from infer.batch.mesh_peers import MeshPeers
from infer.batch.part_file import PartWriter
from infer.batch.progress import BatchProgress
from infer.batch.row_output import RowOutputs
from infer.batch.row_supply import RowSupply
from infer.batch.row_table import RowTable
from infer.batch.runner import Answers, BatchRunner
from infer.batch.schedule import schedule
from infer.batch.stop_signals import StopSignals
from infer.batch.work_done import WorkDone
from infer.protocol import ParsedRequest
from llama_jax.batch_files.batch_row import BatchRow


@dataclass(frozen=True)
class JobRun:
    """What came of it.

    Attributes:
      exit_code: of a signal that ended it, or None if the job is finished.
      work: what this process did.
      seconds: that took.
    """

    exit_code: int | None
    work: WorkDone
    seconds: float


def run_job(
    job: Job,
    table: RowTable,
    *,
    answering: Answers,
    parse: Callable[[BatchRow], ParsedRequest],
    outputs: RowOutputs,
    slots: int,
    say: Callable[[str], None],
    quiet: bool,
) -> JobRun:
    """Answers what is left of a job, shared with whoever else works on it.

    Args:
      job: opened; not finished.
      slots: samples that the engine answers at once. As many again are given to it ahead.
      say: told what was found of an earlier start.

    Raises:
      InputError: the input has changed. OSError: a file cannot be written, such as on a full disk.
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
        runner = BatchRunner(
            table=table,
            supply=supply,
            writer=writer,
            answering=answering,
            parse=parse,
            outputs=outputs,
            window=2 * slots,
            peers=peers,
            progress=progress,
            stop=stop,
        )
        is_finished = runner.run()
        seconds = progress.seconds
    if writer is not None:
        writer.close()
    return JobRun(None if is_finished else stop.exit_code, progress.work, seconds)
