"""`llama-jax plan RUN`: a run's step on a machine that is not here."""

import inspect
from pathlib import Path
from typing import Annotated

from llama_jax.command_line import bind_arguments
from llama_jax.errors import InputError
from train.config import BatchStep, RunConfig
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
        json: Path | None = None,
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
          json: a file for all numbers.
          quiet: no progress, and the verdict only.
        """
        from sharding.pod_plan.report import (
            check_output,
            compiling,
            parse_options,
            print_plan,
            recorded_command,
            verdict,
            write_plan,
        )
        from sharding.topology import find_topology
        from train.plan.step_plan import plan_step

        check_output(json)
        machine = find_topology(topology)
        index = stage_index(run, stage)
        batch_step = planned_batch(run, index, rows=rows, micro_batches=micro_batches)
        with compiling(f"{name} for {topology}", quiet=quiet):
            plan = plan_step(
                run,
                index,
                batch_step,
                machine,
                name=name,
                command=recorded_command(name, arguments),
                options=parse_options(compiler_options),
            )
        if quiet:
            print(verdict(plan))
        else:
            print_plan(plan)
        if json is not None:
            write_plan(plan, json)
        return 0 if plan.fits else 1

    start.__doc__ = inspect.getdoc(start)
    # A field that may hold one of several dataclasses keeps the one it has: no subcommands.
    markers = (tyro.conf.AvoidSubcommands,)
    return bind_arguments(
        start, prog=f"llama-jax plan {name}", arguments=arguments, markers=markers
    )


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
