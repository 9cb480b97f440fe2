"""`llama-jax train`: a run by name, with any of its fields replaced, begun or gone on with."""

import dataclasses
import inspect
from typing import Annotated

from llama_jax.command_line import bind_arguments
from llama_jax.errors import InputError
from train.config import ProfileWindow, RunConfig
from train.named_configs import config_docstring, take_name
from train.run_source import find_run, named_runs


def train(*arguments: str) -> None:
    """Trains a model: any stage of a run, in one process or in each of a pod's.

    llama-jax train RUN [--field value ...]
    llama-jax train --list            the runs that come with the code
    llama-jax train RUN --help        every field of a run

    RUN is a name of the list, path/to/file.py:function, or the folder of a run, which then goes on.
    Started again with the same command, a run goes on from its last checkpoint.

    Example: llama-jax train tiny_cpu --output runs/wider --model.feed-forward-dim 512
      --stages.0.learning-rate.peak 1e-3

    Args:
      arguments: RUN, and fields of it with their new values.
    """
    taken = take_name(arguments, train, usage="llama-jax train RUN", named=named_runs())
    if taken is not None:
        name, rest = taken
        parse_run(find_run(name), name, rest)()


def parse_run(run: RunConfig, name: str, arguments: list[str]):
    """A function that trains `run` with the fields that `arguments` replace.

    Raises `InputError` for an unknown field, with near ones, or a value of another type.
    """
    import tyro

    def start(
        run: Annotated[RunConfig, tyro.conf.arg(name="")] = run,
        *,
        profile_steps: tuple[int, int] | None = None,
        resume: bool = True,
        coordinator: str | None = None,
        num_processes: int | None = None,
        process_id: int | None = None,
        peer_timeout: int = 30,
        quiet: bool = False,
    ) -> None:
        """Trains the run.

        Args:
          run: a field to replace.
          profile_steps: trace a window of steps: the first, counted from 1, and how many.
          resume: go on with what is in the output folder; otherwise it must hold no run.
          coordinator: HOST:PORT of process 0, for clusters that JAX does not know.
          num_processes: how many processes the job has, with --coordinator.
          process_id: which of them this is, from 0, with --coordinator.
          peer_timeout: seconds without a sign of life from another process before all end.
          quiet: plain lines instead of a live display.
        """
        if profile_steps is not None:
            run = dataclasses.replace(run, profile=ProfileWindow(*profile_steps))
        from sharding.multihost import initialize

        cluster = initialize(coordinator, num_processes, process_id, peer_timeout=peer_timeout)
        if not quiet:
            print(cluster)
        start_run(run, resume=resume, quiet=quiet)

    summary, options = _summary(run, name), inspect.getdoc(start).partition("Args:")[2]
    start.__doc__ = f"{summary}\n\nArgs:{options}"
    # A field that may hold one of several dataclasses keeps the one it has: no subcommands.
    markers = (tyro.conf.AvoidSubcommands,)
    return bind_arguments(
        start, prog=f"llama-jax train {name}", arguments=arguments, markers=markers
    )


def start_run(run: RunConfig, *, resume: bool, quiet: bool) -> None:
    """Checks `run`, writes its config into its folder and trains. To be called by all processes,
    once they know each other.

    Raises `InputError` for what the user can put right, before a device has computed anything.
    """
    import jax

    from sharding.mesh import make_mesh
    from train.data_checks import check_data
    from train.disk_space import advising_space
    from train.job import run_operators
    from train.process_zero import as_process_zero_says, on_process_zero
    from train.resume_checks import changed_fields, check_resume, latest_progress
    from train.run_checks import check_run
    from train.run_folder import check_run_folder
    from train.run_json import read_run, write_run
    from train.run_lock import RunLock
    from train.run_past import is_finished

    mesh = check_run(run, jax.device_count())
    run_operators(run, make_mesh(mesh))  # refuses kernels that these devices do not have
    check_run_folder(run.output)
    progress = latest_progress(run.output)
    check_data(run, mesh, begins=progress is None)
    changes: list[str] = []
    if progress is not None:
        if not resume:
            raise InputError(
                f"--no-resume: {run.output} holds a run of {progress.step} steps; give another "
                "--output"
            )
        before = read_run(run.output)
        check_resume(before, run, progress)
        changes = changed_fields(before, run)
    with RunLock(run.output) as lock:
        on_process_zero(lock.take)
        done = progress is not None and not changes and is_finished(run, progress.step)
        if as_process_zero_says(done):
            print(f"{run.output}: already finished, after {progress.step} steps")
            return
        on_process_zero(lambda: write_run(run))

        from train.loop import train as train_loop

        with advising_space(run.output, goes_on="from the last checkpoint"):
            train_loop(run, quiet=quiet, changes=changes)


def _summary(run: RunConfig, name: str) -> str:
    if name in named_runs():
        return config_docstring(name, named_runs())
    return f"The run {name}, into {run.output}."
