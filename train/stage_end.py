"""What happens between the last step of a stage and the first of the next: gate and average.

Nothing of it is saved: a run that is killed here goes on from the stage's last step, and does the
same again.
"""

import dataclasses

from train.averaging import average_params
from train.job import Job
from train.progress import Progress
from train.stage_loop import stage_steps
from train.stages.average_steps import average_steps
from train.state import TrainState


def end_stage(job: Job, state: TrainState, progress: Progress) -> tuple[TrainState, Progress]:
    """The state and the progress with which the next stage begins; or, where the gate asks for
    more, those with which this one goes on."""
    stage = job.run.stages[progress.stage]
    steps = average_steps(stage, stage_steps(stage, progress.gate_rounds))
    if steps:
        job.checkpointer.wait()
        steps = [progress.stage_first_step + step for step in steps]
        params = average_params(job.folder, steps, state.params)
        state = dataclasses.replace(state, params=params)
        said = ", ".join(map(str, steps))
        job.log.write(progress.step, "event", {"averaged": f"the weights of steps {said}"})
        network = job.network(progress.stage)
        losses = job.evaluate(network, params)
        job.log.write(progress.step, "evaluation", {f"{k} averaged": v for k, v in losses.items()})
    following = Progress(
        stage=progress.stage + 1,
        step=progress.step,
        stage_first_step=progress.step,
        tokens=progress.tokens,
        elapsed_seconds=progress.elapsed_seconds,
    )
    return state, following
