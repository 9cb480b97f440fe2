"""`llama-jax plan MODEL`: an engine's programs on a machine that is not here."""

import dataclasses
from pathlib import Path

from infer.cache_dtypes import CacheDtype, cache_dtype_named
from llama_jax.command_line import bind_arguments
from llama_jax.config import PUBLISHED_MODELS, ModelConfig
from llama_jax.errors import InputError


def plan_model(name: str, *arguments: str) -> int:
    """Plans the model `name`, as published or of a checkpoint. 0 if both programs fit, else 1."""

    def start(
        *,
        topology: str,
        recipe: str = "bfloat16",
        rows: int = 16,
        max_length: int = 8192,
        kv_cache_dtype: CacheDtype | None = None,
        memory: float | None = None,
        compiler_options: tuple[str, ...] = (),
        json: Path | None = None,
        quiet: bool = False,
    ) -> int:
        """Compiles the engine's decode and prefill for a machine that is not here.

        Example: llama-jax plan llama31_405b --topology h100:8 --recipe fp8 --rows 32

        Args:
          topology: h100:8, a100:1, v6e:2x4 and so on: all its devices hold the model together.
          recipe: of the weights: bfloat16, fp8, int8, int4 or int8_int4.
          rows: answered at once.
          max_length: longest prompt and answer together, in tokens; there are pages for all rows.
          kv_cache_dtype: of keys and values; bfloat16 by default.
          memory: GB (1e9 bytes) that a device has, in place of its own.
          compiler_options: XLA flags without dashes, NAME=VALUE.
          json: a file for all numbers of both programs.
          quiet: no progress, and the verdicts only.
        """
        from infer.plan.engine_plan import Serving, plan_decode, plan_prefill, planned_executables
        from sharding.pod_plan.plan_fields import plan_fields
        from sharding.pod_plan.report import (
            check_output,
            compiling,
            parse_options,
            print_plan,
            recorded_command,
            verdict,
            write_whole,
        )
        from sharding.topology import find_topology

        check_output("--json", json)
        options = parse_options(compiler_options)
        machine = find_topology(topology)
        if memory is not None:
            peaks = dataclasses.replace(machine.peaks, memory_bytes=memory * 1e9)
            machine = dataclasses.replace(machine, peaks=peaks)
        serving = Serving(recipe, rows, max_length, cache_dtype_named(kv_cache_dtype))
        executables = planned_executables(_config(name), serving, machine)
        command = recorded_command(name, arguments)
        programs = {}
        for program, make in (("decode", plan_decode), ("prefill", plan_prefill)):
            with compiling(f"{program} of {name} for {topology}", quiet=quiet):
                plan = make(
                    executables, serving, machine, name=name, command=command, options=options
                )
            if quiet:
                print(f"{program} {verdict(plan)}")
            else:
                print_plan(plan)
            programs[program] = plan_fields(plan)
        if json is not None:
            write_whole(json, {"command": command} | programs)
        return 0 if all(program["fits"] for program in programs.values()) else 1

    prog = f"llama-jax plan {name}"
    return bind_arguments(start, prog=prog, arguments=list(arguments))()


def _config(name: str) -> ModelConfig:
    """Of the model `name`. Raises `InputError` for a reward model, which generates nothing."""
    if name in PUBLISHED_MODELS:
        return PUBLISHED_MODELS[name]
    from llama_jax.checkpoints.formats import open_source

    config = open_source(Path(name)).config
    if config.reward_head:
        raise InputError(f"{name}: is a reward model, which no engine runs")
    return config
