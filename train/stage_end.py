"""What happens between the last step of a stage and the first of the next: gate and average.

Nothing of it is saved: a run that is killed here goes on from the stage's last step, and does the
same again.
"""

import dataclasses

from llama_jax.errors import InputError
from train.averaging import average_params
from train.job import Job
from train.progress import Progress
from train.stage_loop import stage_mixture, stage_steps
from train.stages.average_steps import average_steps
from train.stages.find_needles import find_needles
from train.stages.gate import GateDecision, decide_gate
from train.stages.needle import NeedleRows
from train.state import TrainState


def end_stage(job: Job, state: TrainState, progress: Progress) -> tuple[TrainState, Progress]:
    """The state and the progress with which the next stage begins; or, where the gate asks for
    more, those with which this one goes on.

    Raises `InputError` if the gate is not passed and shall stop the run.
    """
    stage = job.run.stages[progress.stage]
    if stage.gate:
        decision = try_gate(job, state, progress)
        job.log.write(progress.step, "event", {f"gate {decision.verdict}": decision.reason})
        if decision.verdict == "extra":
            return state, dataclasses.replace(progress, gate_rounds=progress.gate_rounds + 1)
        if decision.verdict == "stop":
            raise InputError(
                f"stage {stage.name}: its gate is not passed: {decision.reason}; raise "
                "gate.max_extra_rounds, or set gate.on_failure to continue"
            )
    if stage.average_last:
        state = average(job, state, progress)
    following = Progress(
        stage=progress.stage + 1,
        step=progress.step,
        stage_first_step=progress.step,
        tokens=progress.tokens,
        elapsed_seconds=progress.elapsed_seconds,
    )
    return state, following


def try_gate(job: Job, state: TrainState, progress: Progress) -> GateDecision:
    """Measures the loss on short texts and looks for needles in rows of the stage's length."""
    stage = job.run.stages[progress.stage]
    network = job.network(progress.stage)
    losses = job.evaluate(network, state.params, progress.stage)
    whole = network.assemble(state.params, job.frozen(progress.stage))
    rows = NeedleRows(
        job.tokenizer,
        stage_mixture(job, progress.stage),
        row_length=stage.row_length,
        num_needles=stage.gate.num_needles,
        seed=job.run.seed,
    )
    found = find_needles(network, whole, rows, job.mesh)
    accuracy = sum(found) / len(found)
    job.log.write(progress.step, "event", {"needles_found": accuracy})
    return decide_gate(
        stage.gate,
        short_loss=losses[stage.gate.short_set],
        baseline=progress.baselines[stage.gate.short_set],
        needle_accuracy=accuracy,
        rounds_done=progress.gate_rounds,
    )


def average(job: Job, state: TrainState, progress: Progress) -> TrainState:
    """The state with the mean of the parameters that were saved over the stage (Polyak)."""
    stage = job.run.stages[progress.stage]
    num_steps = stage_steps(stage, progress.gate_rounds)
    steps = [progress.stage_first_step + step for step in average_steps(stage, num_steps)]
    job.checkpointer.wait()
    params = average_params(job.folder, steps, state.params)
    said = ", ".join(map(str, steps))
    job.log.write(progress.step, "event", {"averaged": f"the weights of steps {said}"})
    if job.run.evaluations:
        losses = job.evaluate(job.network(progress.stage), params, progress.stage)
        averaged = {f"{name}_averaged": loss for name, loss in losses.items()}
        job.log.write(progress.step, "evaluation", averaged)
    return dataclasses.replace(state, params=params)
