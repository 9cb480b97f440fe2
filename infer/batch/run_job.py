"""A job that is open, from wherever it is to its end or to a signal."""

from collections.abc import Callable
from dataclasses import dataclass

from infer.batch.job import Job
from infer.batch.row_output import RowOutputs
from infer.batch.row_table import RowTable
from infer.batch.runner import Answers, BatchRunner
from infer.batch.work_done import WorkDone
from infer.batch.workbench import workbench
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
    with workbench(job, table, say=say, quiet=quiet) as bench:
        runner = BatchRunner(
            table=table,
            supply=bench.supply,
            writer=bench.writer,
            answering=answering,
            parse=parse,
            outputs=outputs,
            window=2 * slots,
            peers=bench.peers,
            progress=bench.progress,
            stop=bench.stop,
        )
        is_finished = runner.run()
        seconds = bench.progress.seconds
    return JobRun(None if is_finished else bench.stop.exit_code, bench.progress.work, seconds)
