"""What of a device's memory in a training step is what.

Arguments are exact. Temporaries are formulas of what must be there in the backward pass: the
gradient in float32, for several micro-batches their sum and one of them; the weights as they are
multiplied, which XLA makes once for all layers; and what the remat policy keeps of each layer.
"""

import jax.numpy as jnp
from jax.sharding import Mesh

from llama_jax.model.remat import kept_bytes_per_token
from sharding.pod_plan.memory import bytes_per_device
from train.config import BatchStep, RunConfig
from train.plan.step_program import StepArguments


def tensor_groups(
    run: RunConfig, stage: int, mesh: Mesh, batch_step: BatchStep, arguments: StepArguments
) -> dict[str, int]:
    """Bytes of one device by name, the arguments first."""
    state, frozen = arguments.state, arguments.frozen
    groups = {
        "weights": bytes_per_device(state.params),
        "moments": bytes_per_device(state.optimizer_state),
        "base weights": bytes_per_device(frozen.get("base", {})),
        "reference policy": bytes_per_device(frozen.get("reference", {})),
        "batch": bytes_per_device(arguments.batch),
    }
    itemsize = jnp.dtype(run.param_dtype).itemsize
    num_trained = groups["weights"] // itemsize
    gradients = 4 if batch_step.micro_batches == 1 else 4 + itemsize
    groups["gradients"] = gradients * num_trained
    if run.compute_dtype != run.param_dtype:
        groups[f"weights in {run.compute_dtype}"] = (
            jnp.dtype(run.compute_dtype).itemsize * num_trained
        )
    kept = kept_bytes_per_token(run.model, run.remat, jnp.dtype(run.compute_dtype).itemsize)
    if kept is not None:
        tokens = batch_step.rows // batch_step.micro_batches * run.stages[stage].row_length
        groups["kept for the backward pass"] = run.model.num_layers * kept * tokens // mesh.size
    return {name: size for name, size in groups.items() if size}
