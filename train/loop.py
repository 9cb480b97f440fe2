"""A run from its first step to its last, or from where it was killed: `train`.

The loop does not know what a stage is for; a stage is data, a length and a learning rate. Where it
begins is written in `checkpointing.py`: own checkpoint, initial weights, random weights.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import jax
import jax.numpy as jnp

from llama_jax.errors import InputError
from llama_jax.kernels.kernel_log import kernels_told
from llama_jax.tokenizers import load_tokenizer
from sharding.mesh import make_mesh
from sharding.placement import init_sharded_params, on_mesh
from train.adapter_export import export_adapter
from train.checkpointing import Checkpointer
from train.config import RunConfig
from train.export import export_weights
from train.initial_weights import initial_params
from train.job import Job, stage_model
from train.lora import init_adapters
from train.metrics_log import MetricsLog
from train.preemption import Preemption
from train.process_zero import on_process_zero
from train.profiler import Profiler
from train.progress import Progress
from train.resume_checks import latest_progress
from train.run_chat_format import run_chat_format
from train.run_past import devices_before, devices_text, note_finished
from train.run_tokenizer import copy_tokenizer
from train.stage_end import end_stage
from train.stage_loop import train_stage
from train.state import TrainState, new_state
from train.throughput import missing_figures


def train(run: RunConfig, *, quiet: bool = False, changes: Sequence[str] = ()) -> None:
    """Trains all stages of `run` and writes `RUN_DIR/weights`.

    Run again with the same folder it goes on from the last checkpoint, to the same bits.

    Args:
      changes: what differs from the config with which the run came so far, to be written down.

    Raises:
      InputError: something in the run, its data or its checkpoints that the user can put right.
      SystemExit: with code 143 after SIGTERM, 130 after Ctrl-C, and a last checkpoint: the same
        command goes on.
    """
    # Machine
    mesh = make_mesh(run.mesh)
    folder = Path(run.output)

    # Checkpoints and metrics
    copy_tokenizer(folder, run.tokenizer, run_chat_format(run))
    checkpointer = Checkpointer(folder, run.checkpoint)
    log = MetricsLog(folder, quiet=quiet, resume_step=checkpointer.latest_step())
    profiler = Profiler(folder, run.profile)
    saves, kernels = _finishing_saves(checkpointer), kernels_told(log.say)
    with on_mesh(mesh), log, kernels, saves, Preemption() as preemption, profiler:
        job = Job(
            run=run,
            mesh=mesh,
            tokenizer=load_tokenizer(run.tokenizer),
            checkpointer=checkpointer,
            log=log,
            profiler=profiler,
            preemption=preemption,
        )

        # State
        state, progress = start(job, changes)
        if why := missing_figures(mesh.devices.flat[0]):
            log.say(why)

        # Stages
        while True:
            state, progress = train_stage(job, state, progress)
            state, progress = end_stage(job, state, progress)
            if progress.stage_step:
                continue  # the gate asks for more of the same stage
            if progress.stage == len(run.stages):
                break

        # Weights
        checkpointer.close()
        if run.lora is not None:
            export_adapter(job, state.params)
        else:
            model = stage_model(run, len(run.stages) - 1)
            export_weights(folder, model, state.params)
        on_process_zero(lambda: note_finished(run, progress.step))
        log.write(progress.step, "event", {"done": f"weights in {folder / 'weights'}"})


def start(job: Job, changes: Sequence[str] = ()) -> tuple[TrainState, Progress]:
    """Own checkpoint, else initial weights, else random ones."""
    run, checkpointer = job.run, job.checkpointer
    abstract, devices = job.abstract_state(), devices_text(job.mesh)
    if (step := checkpointer.latest_step()) is not None:
        stage = latest_progress(job.folder).stage
        state, progress = checkpointer.restore(abstract, model_config=stage_model(run, stage))
        if (earlier := devices_before(job.folder)) not in (None, devices):
            changes = [*changes, f"devices: {earlier} -> {devices}"]
        said = f"from the checkpoint of step {step}"
        job.log.write(step, "event", {"resumed": said, "on": devices})
        if changes:
            job.log.write(step, "event", {"changed": "; ".join(changes)})
        return state, progress
    if run.lora is not None:
        params = init_adapters(abstract.params, jax.random.key(run.seed))
        said = f"with a new change of rank {run.lora.rank} of {run.initial_weights}"
    elif run.initial_weights is not None:
        params = initial_params(run, job.mesh)
        said = f"with the weights of {run.initial_weights}"
    else:
        key, dtype = jax.random.key(run.seed), jnp.dtype(run.param_dtype)
        params = init_sharded_params(run.model, key, job.mesh, dtype=dtype)
        said = f"with random weights of seed {run.seed}"
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
    optimizer = job.optimizer
    state = jax.jit(
        lambda params: new_state(params, optimizer), out_shardings=shardings, donate_argnums=0
    )(params)
    job.log.write(0, "event", {"started": said, "on": devices})
    return state, Progress()


@contextmanager
def _finishing_saves(checkpointer: Checkpointer) -> Iterator[None]:
    """Around a run: what the user has to put right, such as a gate that is not passed, ends it on
    all processes alike, and not in the middle of a save. Other errors may be one process's own, and
    it must not wait for the rest."""
    try:
        yield
    except InputError:
        checkpointer.close()
        raise
