"""A stage's step, compiled for devices that need not be here."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.stages import Compiled

from sharding.placement import batch_sharding, on_mesh, rows_sharding
from train.config import BatchStep, RunConfig, StageConfig
from train.job import make_network, stage_model
from train.lora import abstract_adapters
from train.losses.loss import Batch, Frozen
from train.optimizer import make_optimizer
from train.state import TrainState, abstract_state, abstract_state_of
from train.step import make_train_step

# Pairs or answers of a row, in place of the data's own number.
SLOTS = 16


@dataclass(frozen=True)
class StepArguments:
    """Shapes, dtypes and shardings of what a step is given."""

    state: TrainState
    frozen: Frozen
    batch: Batch


def step_arguments(run: RunConfig, stage: int, mesh: Mesh, batch_step: BatchStep) -> StepArguments:
    """Those of stage `stage` for steps like `batch_step`; nothing is allocated.

    The base of a LoRA is taken to be in `compute_dtype`, as unquantised weights are.
    """
    config = run.stages[stage]
    optimizer = make_optimizer(run.optimizer)
    dtype = jnp.dtype(run.param_dtype)
    state = abstract_state(run.model, optimizer, mesh, dtype=dtype)
    frozen = {}
    if run.lora is not None:
        adapters = abstract_adapters(run.model, run.lora, mesh, dtype=dtype)
        state = abstract_state_of(adapters, optimizer, mesh)
        base = abstract_state(run.model, optimizer, mesh, dtype=jnp.dtype(run.compute_dtype))
        frozen["base"] = base.params
    if config.loss.reference == "in_memory":
        compared = config.reference_model or run.model
        weights = abstract_state(compared, optimizer, mesh, dtype=jnp.dtype(run.compute_dtype))
        frozen["reference"] = weights.params
    return StepArguments(state, frozen, _abstract_batch(config, mesh, batch_step))


def compile_step(
    run: RunConfig,
    stage: int,
    mesh: Mesh,
    batch_step: BatchStep,
    *,
    options: dict[str, str] | None = None,
) -> Compiled:
    """The executable of stage `stage` on `mesh` for steps like `batch_step`.

    Args:
      options: flags of the compiler, without dashes.

    Its `memory_analysis()` is per device. A step that does not fit is an error of the compiler,
    which says by how much.
    """
    config = run.stages[stage]
    arguments = step_arguments(run, stage, mesh, batch_step)
    with on_mesh(mesh):
        step = make_train_step(
            make_network(run, stage_model(run, stage), mesh, config.reference_model),
            run.optimizer,
            lambda step: config.learning_rate.rate(step, first_step=0, num_steps=1),
            loss=config.loss,
            state=arguments.state,
        )
        lowered = step.lower(arguments.state, arguments.frozen, arguments.batch)
        return lowered.compile(options)


def _abstract_batch(config: StageConfig, mesh: Mesh, batch_step: BatchStep) -> Batch:
    """Of one step, `[A, B, ...]`."""
    parts = batch_step.micro_batches
    of_tokens = batch_sharding(mesh)
    of_rows = rows_sharding(of_tokens)
    return {
        name: jax.ShapeDtypeStruct(
            (parts, batch_step.rows // parts, *row.shape),
            row.dtype,
            sharding=of_tokens if row.shape[:1] == (config.row_length,) else of_rows,
        )
        for name, row in config.loss.row_arrays(config.row_length, SLOTS).items()
    }
