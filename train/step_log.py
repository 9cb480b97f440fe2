"""What is said of a stage's steps: loss, rates, times, rows of each source, skipped steps."""

import jax

from llama_jax.errors import InputError
from train.data.batch_schedule import BatchSchedule
from train.data.mixture import Mixture
from train.job import Job
from train.network import Network
from train.progress import Progress
from train.step_timer import StepTimer
from train.throughput import Throughput


class StepLog:
    """Fetches the metrics of each step of a stage and writes those whose turn it is.

    A step is fetched after the next one is on its way, so that the devices never wait for the host:
    `add` takes a step and fetches the one before, `flush` fetches the last.

    Attributes:
      timer: of the loop; make this object right before the first step.
    """

    def __init__(
        self, job: Job, network: Network, progress: Progress, mixture: Mixture,
        schedule: BatchSchedule,
    ):  # fmt: skip
        self._job, self._mixture, self._schedule = job, mixture, schedule
        self._stage = job.run.stages[progress.stage]
        self._first_step = progress.stage_first_step
        self._logged_rows = schedule.rows_before(progress.stage_step)
        self._tokens = progress.tokens
        self._skipped = 0.0
        self._pending: tuple[int, dict[str, jax.Array]] | None = None
        self._throughput = Throughput(network.config, row_length=self._stage.row_length)
        self.timer = StepTimer()

    @property
    def pending(self) -> dict[str, jax.Array] | None:
        """Results of the latest step, on their way."""
        return self._pending and self._pending[1]

    def add(self, stage_step: int, metrics: dict[str, jax.Array]) -> None:
        """Step `stage_step` of the stage, counted from 1, was handed to the devices.

        Raises `InputError` if the steps before it were skipped too often.
        """
        self._fetch(must_write=False)
        self._pending = (stage_step, metrics)

    def flush(self) -> dict[str, float]:
        """Waits for the latest step, writes it even if it is not its turn, and returns its metrics.
        Raises as `add`."""
        return self._fetch(must_write=True)

    def _fetch(self, *, must_write: bool) -> dict[str, float]:
        if self._pending is None:
            return {}
        (stage_step, metrics), self._pending = self._pending, None
        values = {name: float(value) for name, value in jax.device_get(metrics).items()}
        self.timer.step_done()
        self._skipped += values["skipped"]
        step = self._first_step + stage_step
        self._check(step, values)
        if must_write or step % self._job.run.log_every_steps == 0:
            self._write(step, stage_step, values)
        return values

    def _check(self, step: int, values: dict[str, float]) -> None:
        limit = self._job.run.optimizer.max_skipped
        if values["skipped_in_a_row"] >= limit:
            raise InputError(
                f"{self._stage.name} step {step}: the last {limit} steps were skipped (loss "
                f"{values['loss']}, gradient norm {values['gradient_norm']}); look at the data and "
                "the learning rate, or raise optimizer.max_skipped"
            )

    def _write(self, step: int, stage_step: int, values: dict[str, float]) -> None:
        rows = self._schedule.rows_before(stage_step)
        tokens = (rows - self._logged_rows) * self._stage.row_length
        self._tokens += tokens
        times = self.timer.take()
        rates = self._throughput.values(tokens, times["interval_seconds"])
        drawn = {f"rows/{name}": n for name, n in self._mixture.rows_drawn(rows).items()}
        # Of all steps since the last line, where the other values are those of the latest.
        totals = {"skipped": self._skipped, "total_tokens": self._tokens}
        self._job.log.write(step, "train", {**values, **rates, **times, **totals, **drawn})
        self._logged_rows, self._skipped = rows, 0.0
