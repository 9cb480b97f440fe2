"""The steps of one stage.

A step's metrics are fetched after the next step is on its way, so that the devices never wait for
the host; what is logged, saved and evaluated is the same for that.
"""

import dataclasses
import time

import jax
import numpy as np

from llama_jax.errors import InputError
from sharding.placement import batch_sharding
from train.config import StageConfig
from train.data.batch_schedule import BatchSchedule
from train.data.loader import Loader
from train.data.mixture import Mixture
from train.job import Job, step_metrics
from train.progress import Progress
from train.stages.average_steps import average_steps
from train.state import TrainState
from train.step import make_train_step
from train.step_timer import StepTimer
from train.throughput import Throughput

# Steps that are read from disk before they are asked for.
READ_AHEAD = 4


def stage_steps(stage: StageConfig, gate_rounds: int) -> int:
    """How many steps the stage has, prolonged by so many rounds of its gate."""
    extra = stage.gate.extra_tokens * gate_rounds if stage.gate else 0
    schedule = BatchSchedule(stage.batch, row_length=stage.row_length)
    return schedule.steps_for(stage.num_tokens + extra)


def train_stage(job: Job, state: TrainState, progress: Progress) -> tuple[TrainState, Progress]:
    """Runs the steps that are left of stage `progress.stage`.

    Raises `SystemExit` (143) after a save if the job is told to end, and `InputError` if too many
    steps in a row were not finite.
    """
    run, log = job.run, job.log
    stage = run.stages[progress.stage]
    num_steps = stage_steps(stage, progress.gate_rounds)
    first_step = progress.stage_first_step
    network = job.network(progress.stage)
    log.begin_stage(stage.name, first_step=first_step, num_steps=num_steps)
    pinned = [first_step + step for step in average_steps(stage, num_steps)]
    job.checkpointer.pin(pinned)

    # What the gate compares with
    if stage.gate and not progress.stage_step and not progress.baselines:
        losses = job.evaluate(network, state.params)
        progress = dataclasses.replace(progress, baselines=losses)
    if progress.stage_step >= num_steps:
        return state, progress

    # Data
    schedule = BatchSchedule(stage.batch, row_length=stage.row_length)
    mixture = stage_mixture(job, progress.stage)
    loader = Loader(
        mixture,
        schedule,
        micro_batches=stage.micro_batches,
        sharding=batch_sharding(job.mesh),
        first_step=progress.stage_step,
        num_steps=num_steps - progress.stage_step,
        read_ahead=READ_AHEAD,
    )

    # Step
    planned = {"first_step": first_step, "num_steps": stage_steps(stage, 0)}
    train_step = make_train_step(
        network,
        run.optimizer,
        lambda step: stage.learning_rate.rate(step, **planned),
        z_loss=run.z_loss,
        state=job.abstract_state(),
    )
    compiled = {}
    throughput = Throughput(
        network.config,
        row_length=stage.row_length,
        say=lambda line: log.write(progress.step, "event", {"note": line}),
    )

    # Steps
    timer = StepTimer()
    began = time.monotonic()
    elapsed_before, tokens_before = progress.elapsed_seconds, progress.tokens
    first_rows = schedule.rows_before(progress.stage_step)
    logged_rows = first_rows

    def log_step(step: int, metrics: dict[str, jax.Array]) -> None:
        """Waits for step `step` of the stage (counted from 1) and logs it if it is its turn."""
        nonlocal logged_rows
        values = step_metrics(metrics)
        timer.step_done()
        if values["skipped_in_a_row"] >= run.optimizer.max_skipped:
            raise InputError(
                f"{stage.name} step {first_step + step}: the last {run.optimizer.max_skipped} "
                f"steps were skipped (loss {values['loss']}, gradient norm "
                f"{values['gradient_norm']}); look at the data and the learning rate, or raise "
                "optimizer.max_skipped"
            )
        if (first_step + step) % run.log_every_steps and step != num_steps:
            return
        rows = schedule.rows_before(step)
        times = timer.take()
        tokens = (rows - logged_rows) * stage.row_length
        rates = throughput.values(tokens, times["interval_seconds"])
        logged_rows = rows
        drawn = {f"rows/{name}": n for name, n in mixture.rows_drawn(rows).items()}
        total = {"total_tokens": tokens_before + (rows - first_rows) * stage.row_length}
        log.write(first_step + step, "train", {**values, **rates, **times, **total, **drawn})

    unlogged = None
    with loader:
        for stage_step in range(progress.stage_step + 1, num_steps + 1):
            step = first_step + stage_step
            with timer.waiting():
                batch = next(loader)
            shape = batch["tokens"].shape
            if shape not in compiled:
                with timer.aside("compile"):
                    compiled[shape] = train_step.lower(state, batch).compile()
            with job.profiler.step(step, results=unlogged):
                state, metrics = compiled[shape](state, batch)
            if unlogged is not None:
                log_step(*unlogged)
            unlogged = (stage_step, metrics)

            told = job.preemption.requested(step)
            evaluates = run.evaluate_every_steps and step % run.evaluate_every_steps == 0
            saves = step % run.checkpoint.every_steps == 0 or step in pinned
            last = stage_step == num_steps
            if not (told or evaluates or saves or last):
                continue
            log_step(*unlogged)
            unlogged = None
            losses = {}
            if (evaluates or last) and not told:
                with timer.aside("evaluation"):
                    losses = job.evaluate(network, state.params)
                log.write(step, "evaluation", losses)
            progress = dataclasses.replace(
                progress,
                step=step,
                stage_step=stage_step,
                rows=schedule.rows_before(stage_step),
                tokens=tokens_before
                + (schedule.rows_before(stage_step) - first_rows) * stage.row_length,
                elapsed_seconds=elapsed_before + time.monotonic() - began,
            )
            if told or saves or last or run.checkpoint.best_set in losses:
                with timer.aside("checkpoint"):
                    job.checkpointer.save(state, progress, network.config, losses)
            if told:
                job.checkpointer.wait()
                log.write(step, "event", {"preempted": f"saved step {step}; run again to go on"})
                raise SystemExit(143)
    return state, progress


def stage_mixture(job: Job, stage: int) -> Mixture:
    """The rows of stage `stage`. Its number is part of the seed, so that two stages on the same
    data see it in another order."""
    seed = np.random.SeedSequence([job.run.seed, stage]).generate_state(1)[0]
    return Mixture(
        job.run.stages[stage].mixture,
        row_length=job.run.stages[stage].row_length,
        seed=int(seed),
        tokenizer_sha256=job.tokenizer_sha256,
    )
