"""The steps of one stage.

Batches are read ahead, metrics are fetched one step late and checkpoints are written in the
background, so that the devices go from step to step without waiting for the host.
"""

import dataclasses
import math
import time

import numpy as np

from llama_jax.errors import InputError
from sharding.placement import batch_sharding
from train.config import StageConfig
from train.data.batch_schedule import BatchSchedule
from train.data.loader import Loader
from train.data.mixture import Mixture
from train.export import set_aside_weights
from train.job import Job
from train.process_zero import on_process_zero
from train.progress import Progress
from train.reference_log_probs import store_reference
from train.stages.average_steps import average_steps
from train.state import TrainState
from train.step import make_train_step
from train.step_log import StepLog

# Steps that are read from disk before they are asked for.
READ_AHEAD = 4


def stage_steps(stage: StageConfig, gate_rounds: int) -> int:
    """How many steps the stage has, prolonged by so many rounds of its gate."""
    extra = stage.gate.extra_tokens * gate_rounds if stage.gate else 0
    schedule = BatchSchedule(stage.batch, row_length=stage.row_length)
    return schedule.steps_for(stage.num_tokens + extra)


def train_stage(job: Job, state: TrainState, progress: Progress) -> tuple[TrainState, Progress]:
    """Runs the steps that are left of stage `progress.stage`.

    Raises `SystemExit` (143, 130) after a save if the job is told to end, and `InputError` if too
    many steps in a row were not finite or the stage ends in a loss that is not.
    """
    run = job.run
    stage = run.stages[progress.stage]
    num_steps = stage_steps(stage, progress.gate_rounds)
    first_step = progress.stage_first_step
    network, frozen = job.network(progress.stage), job.frozen(progress.stage)
    job.log.begin_stage(stage.name, first_step=first_step, num_steps=num_steps)
    store_reference(job, progress.stage)
    pinned = [first_step + step for step in average_steps(stage, num_steps)]
    job.checkpointer.pin(pinned)

    # What the gate compares with
    if stage.gate and not progress.stage_step and not progress.baselines:
        # The model as it was, without the RoPE of this stage: what it forgets is to be recovered.
        losses = job.evaluate(job.network(progress.stage - 1), state.params, progress.stage)
        progress = dataclasses.replace(progress, baselines=losses)
    if progress.stage_step >= num_steps:
        return state, progress

    # Data
    schedule = BatchSchedule(stage.batch, row_length=stage.row_length)
    mixture = stage_mixture(job, progress.stage)
    loader = Loader(
        mixture,
        schedule,
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
        loss=stage.loss,
        state=job.abstract_state(),
    )
    compiled = {}

    # Steps
    on_process_zero(lambda: set_aside_weights(job.folder, progress.step))
    log = StepLog(job, network, progress, mixture, schedule)
    timer, began, before = log.timer, time.monotonic(), progress
    with loader:
        for stage_step in range(before.stage_step + 1, num_steps + 1):
            step = first_step + stage_step
            with timer.waiting():
                batch = next(loader)
            shape = batch["tokens"].shape
            if shape not in compiled:
                with timer.aside("compile"):
                    compiled[shape] = train_step.lower(state, frozen, batch).compile()
            with job.profiler.step(step, results=log.pending):
                state, metrics = compiled[shape](state, frozen, batch)
            log.add(stage_step, metrics)

            told = job.preemption.requested(step)
            last = stage_step == num_steps
            evaluates = run.evaluations and (last or _is_due(step, run.evaluate_every_steps))
            saves = last or _is_due(step, run.checkpoint.every_steps) or step in pinned
            if not (told or evaluates or saves):
                continue
            training_loss = log.flush()["loss"]
            rows = schedule.rows_before(stage_step)
            trained = (rows - schedule.rows_before(before.stage_step)) * stage.row_length
            progress = dataclasses.replace(
                before,
                step=step,
                stage_step=stage_step,
                rows=rows,
                tokens=before.tokens + trained,
                elapsed_seconds=before.elapsed_seconds + time.monotonic() - began,
            )
            losses = {}
            if evaluates and not told:
                with timer.aside("evaluation"):
                    losses = job.evaluate(network, state.params, progress.stage)
                job.log.write(step, "evaluation", losses)
            if last:
                _refuse_divergence(stage, losses or {"training": training_loss})
            if told or saves or run.checkpoint.best_set in losses:
                with timer.aside("checkpoint"):
                    job.checkpointer.save(state, progress, network.config, losses)
            if told:
                job.checkpointer.wait()
                said = f"saved step {step}; run again to go on"
                job.log.write(step, "event", {"preempted": said})
                raise SystemExit(job.preemption.exit_code)
    return state, progress


def _refuse_divergence(stage: StageConfig, losses: dict[str, float]) -> None:
    """Weights that compute nothing are no end of a stage."""
    for name, loss in losses.items():
        if not math.isfinite(loss):
            raise InputError(
                f"{stage.name}: at its end the {name} loss is {loss}; lower the learning rate, and "
                "remove the run's folder, or its checkpoints of after the loss rose"
            )


def _is_due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def stage_mixture(job: Job, stage: int) -> Mixture:
    """The rows of stage `stage`. Its number is part of the seed, so that two stages on the same
    data see it in another order."""
    seed = np.random.SeedSequence([job.run.seed, stage]).generate_state(1)[0]
    return Mixture(
        job.run.stages[stage].mixture,
        row_length=job.run.stages[stage].row_length,
        seed=int(seed),
        tokenizer_sha256=job.tokenizer_sha256,
        reference_sha256=job.reference_sha256(stage),
    )
