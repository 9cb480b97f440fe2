"""`llama-jax plan RUN`: a run's step on a machine that is not here."""

import inspect
import sys
from pathlib import Path
from typing import Annotated

from llama_jax.command_line import bind_arguments
from llama_jax.errors import InputError
from sharding.pod_plan.report import recorded_command
from train.config import BatchStep, RunConfig
from train.field_checks import at_least
from train.run_source import find_run


def plan_run(name: str, *arguments: str) -> int:
    """Plans the run `name`; see `parse_plan` for the arguments. 0 if it fits, else 1."""
    return parse_plan(find_run(name), name, list(arguments))()


def parse_plan(run: RunConfig, name: str, arguments: list[str]):
    """A function that plans `run` with the fields that `arguments` replace.

    Raises `InputError` for an unknown field, with near ones, or a value of another type.
    """
    import tyro

    def start(
        run: Annotated[RunConfig, tyro.conf.arg(name="")] = run,
        *,
        topology: str,
        stage: str | None = None,
        rows: int | None = None,
        micro_batches: int | None = None,
        compiler_options: tuple[str, ...] = (),
        search: int = 0,
        processes: int = 2,
        json: Path | None = None,
        plot: Path | None = None,
        quiet: bool = False,
    ) -> int:
        """Compiles the step of a run for a machine that is not here: bytes, work, traffic, time.

        Example: llama-jax plan pretrain_8b --topology v5p:2x2x4 --rows 32 --remat attention

        Args:
          run: a field to replace.
          topology: v5e:4x4, v5p:16x16x16, 2*v6e:16x16, tpu7x:4x4x4, h100:8, h100:16x8 and so on.
          stage: its name; the run's last by default.
          rows: of a step; those of the stage's last batch by default.
          micro_batches: parts of a step.
          compiler_options: XLA flags without dashes, NAME=VALUE; the job needs them too, in
            LIBTPU_INIT_ARGS or XLA_FLAGS.
          search: compile so many other meshes, remat policies and micro-batches, those first that
            promise most, and rank them; the run's own are not among them unless they do.
          processes: of a search at once, some gigabytes of memory each.
          json: a file for all numbers.
          plot: a picture of memory by tensor group, .png or .svg.
          quiet: no progress, and the verdict only.
        """
        from sharding.pod_plan.report import check_output, parse_options
        from sharding.topology import find_topology

        for option, path in (("--json", json), ("--plot", plot)):
            check_output(option, path)
        at_least(search, 0, "--search")
        at_least(processes, 1, "--processes")
        index = stage_index(run, stage)
        planned = dict(
            name=name,
            command=recorded_command(name, arguments),
            options=parse_options(compiler_options),
        )
        batch_step = planned_batch(run, index, rows=rows, micro_batches=micro_batches)
        machine = find_topology(topology)
        if search:
            return _search(
                run, index, batch_step, machine, planned, most=search, processes=processes,
                json=json, plot=plot, quiet=quiet,
            )  # fmt: skip
        return _plan(run, index, batch_step, machine, planned, json=json, plot=plot, quiet=quiet)

    start.__doc__ = inspect.getdoc(start)
    # A field that may hold one of several dataclasses keeps the one it has: no subcommands.
    markers = (tyro.conf.AvoidSubcommands,)
    return bind_arguments(
        start, prog=f"llama-jax plan {name}", arguments=arguments, markers=markers
    )


def _plan(run, stage, batch_step, machine, planned, *, json, plot, quiet) -> int:
    from sharding.pod_plan.memory_plot import plot_memory
    from sharding.pod_plan.plan_fields import plan_fields
    from sharding.pod_plan.report import compiling, print_plan, verdict, write_whole
    from train.plan.step_plan import plan_step

    with compiling(f"{planned['name']} for {machine.name}", quiet=quiet):
        plan = plan_step(run, stage, batch_step, machine, **planned)
    if quiet:
        print(verdict(plan))
    else:
        print_plan(plan)
    if json is not None:
        write_whole(json, plan_fields(plan))
    if plot is not None:
        plot_memory([plan_fields(plan)], [f"{planned['name']} on {machine.name}"], plot)
    return 0 if plan.fits else 1


def _search(run, stage, batch_step, machine, planned, *, most, processes, json, plot, quiet) -> int:
    from sharding.pod_plan.memory_plot import plot_memory
    from sharding.pod_plan.report import compiling, write_whole
    from train.plan.search import arrangement, search

    def say(line: str) -> None:
        if not quiet:
            print(line, file=sys.stderr, flush=True)

    with compiling(f"arrangements of {planned['name']} for {machine.name}", quiet=quiet):
        found = search(
            run, stage, batch_step.rows, machine, most=most, processes=processes, say=say, **planned
        )
    for rank, fields in enumerate(found, 1):
        print(f"{rank:>2}. {arrangement(fields)}")
    if json is not None:
        write_whole(json, {"command": planned["command"], "plans": found})
    if plot is not None:
        plot_memory(found, [arrangement(fields).partition(":")[0] for fields in found], plot)
    return 0 if found[0]["fits"] else 1


def stage_index(run: RunConfig, name: str | None) -> int:
    """The place of the stage `name`, the last by default. Raises `InputError` if there is none."""
    names = [stage.name for stage in run.stages]
    if name is None:
        return len(names) - 1
    if name not in names:
        raise InputError(f"--stage {name}: the run has {', '.join(names)}")
    return names.index(name)


def planned_batch(
    run: RunConfig, stage: int, *, rows: int | None, micro_batches: int | None
) -> BatchStep:
    """The last batch of the stage, or what is given: rows at once, unless they are to be split."""
    last = run.stages[stage].batch[-1]
    parts = micro_batches or (last.micro_batches if rows is None else 1)
    return BatchStep(0, rows or last.rows, parts)
