"""A stage's step, compiled for devices that need not be here."""

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.stages import Compiled

from sharding.placement import batch_sharding, on_mesh
from train.config import BatchStep, RunConfig
from train.job import make_network, stage_model
from train.optimizer import make_optimizer
from train.state import abstract_state
from train.step import make_train_step


def compile_step(run: RunConfig, stage: int, mesh: Mesh, batch_step: BatchStep) -> Compiled:
    """The executable of stage `stage` on `mesh` for steps like `batch_step`; nothing is allocated.

    Its `memory_analysis()` is per device. A step that does not fit is an error of the compiler,
    which says by how much.
    """
    config = run.stages[stage]
    optimizer = make_optimizer(run.optimizer)
    state = abstract_state(run.model, optimizer, mesh, dtype=jnp.dtype(run.param_dtype))
    parts = batch_step.micro_batches
    shape = (parts, batch_step.rows // parts, config.row_length)
    sharding = batch_sharding(mesh)
    dtypes = dict.fromkeys(("tokens", "targets", "segment_ids"), jnp.int32) | {"loss_mask": bool}
    batch = {
        name: jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)
        for name, dtype in dtypes.items()
    }
    with on_mesh(mesh):
        step = make_train_step(
            make_network(run, stage_model(run, stage), mesh),
            run.optimizer,
            lambda step: config.learning_rate.rate(step, first_step=0, num_steps=1),
            loss=config.loss,
            state=state,
        )
        return step.lower(state, {}, batch).compile()
