"""The plan of one stage's step: what a run, a stage, a batch and a machine come to."""

import dataclasses

from jax.sharding import Mesh

from llama_jax.costs import forward_flops_per_token
from llama_jax.errors import InputError
from sharding.mesh import make_mesh
from sharding.pod_plan.plan import Plan, Subject, make_plan
from sharding.topology import Topology
from train.config import BatchStep, RunConfig
from train.job import stage_model
from train.plan.step_program import compile_step, step_arguments
from train.plan.tensor_groups import tensor_groups
from train.run_checks import check_run

# cuDNN's attention can only be compiled where cuDNN is.
GPU_ATTENTION = ("mosaic_gpu", "chunked")
_GPU_NOTE = (
    "attention: cudnn, which auto takes on GPUs, compiles only beside cuDNN; planned with "
    f"{' or '.join(GPU_ATTENTION)}"
)


def plan_step(
    run: RunConfig,
    stage: int,
    batch_step: BatchStep,
    topology: Topology,
    *,
    name: str,
    command: str,
    options: dict[str, str] | None = None,
) -> Plan:
    """Compiles the step of `run` in stage `stage`.

    Args:
      options: flags of the compiler.

    Raises `InputError` for what the machine or the numbers do not allow.
    """
    notes = []
    if not topology.is_tpu and run.attention == ("auto",):
        run = dataclasses.replace(run, attention=GPU_ATTENTION)
        notes.append(_GPU_NOTE)
    elif not topology.is_tpu and "cudnn" in run.attention:
        raise InputError(
            "attention: cudnn compiles only beside cuDNN; plan with --attention mosaic_gpu"
        )
    check_run(planned_part(run, stage, batch_step), len(topology.devices))
    mesh = make_mesh(run.mesh, topology.devices)
    subject = _subject(run, stage, batch_step, mesh, name=name, command=command, options=options)
    return make_plan(
        subject,
        mesh,
        topology,
        lambda: compile_step(run, stage, mesh, batch_step, options=options),
        notes=tuple(notes),
    )


def planned_part(run: RunConfig, stage: int, batch_step: BatchStep) -> RunConfig:
    """`run` as if it had one stage with one batch, which is all that the machine is asked about."""
    config = dataclasses.replace(run.stages[stage], batch=(batch_step,), gate=None, average_last=0)
    if config.reference is None and config.loss.reference != "none":
        config = dataclasses.replace(config, reference=run.initial_weights)
    return dataclasses.replace(
        run,
        stages=(config,),
        evaluations=(),
        evaluate_every_steps=0,
        checkpoint=dataclasses.replace(run.checkpoint, best_set=None),
    )


def _subject(
    run: RunConfig,
    stage: int,
    batch_step: BatchStep,
    mesh: Mesh,
    *,
    name: str,
    command: str,
    options: dict[str, str] | None,
) -> Subject:
    config, model = run.stages[stage], stage_model(run, stage)
    tokens = batch_step.rows * config.row_length
    arguments = step_arguments(run, stage, mesh, batch_step)
    settings = {
        "stage": config.name,
        "loss": type(config.loss).__name__,
        "rows": batch_step.rows,
        "row_length": config.row_length,
        "micro_batches": batch_step.micro_batches,
        "remat": run.remat,
        "attention": list(run.attention),
        "matmul": run.matmul,
        "compute_dtype": run.compute_dtype,
        "param_dtype": run.param_dtype,
        "moment_dtype": run.optimizer.moment_dtype,
        "compiler_options": dict(options or {}),
    }
    return Subject(
        name=name,
        program="train",
        command=command,
        settings=settings,
        tokens=tokens,
        flops_causal=3 * tokens * forward_flops_per_token(model, (config.row_length + 1) / 2),
        flops_full=3 * tokens * forward_flops_per_token(model, config.row_length),
        groups=tensor_groups(run, stage, mesh, batch_step, arguments),
    )
