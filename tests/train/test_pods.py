"""The real configs' steps, compiled for TPU pods that are not here: they fit."""

import pytest

from llama_jax.compile_targets import target_devices
from llama_jax.costs import num_parameters
from sharding.mesh import make_mesh
from train.config import BatchStep
from train.plan.step_program import compile_step
from train.run_source import load_function

GIB = 2**30
# A v5p chip has 95 GiB. The compiler refuses what does not fit; the rest is for the runtime.
V5P_BYTES = 95 * GIB


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "topology"),
    [
        ("pretrain_8b", "v5p:2x2x4"),
        ("pretrain_405b", "v5p:16x16x16"),
        ("sft_8b", "v5p:2x2x4"),
        ("reward_8b", "v5p:2x2x4"),
        ("dpo_8b", "v5p:2x2x4"),
        ("distill_8b", "v5p:2x2x4"),
    ],
)
def test_the_step_at_8192_tokens_fits(name, topology):
    run = load_function(name)()
    stage = next(i for i, stage in enumerate(run.stages) if stage.row_length == 8192)
    mesh = make_mesh(run.mesh, target_devices(topology))
    compiled = compile_step(run, stage, mesh, run.stages[stage].batch[-1])
    memory = compiled.memory_analysis()
    # Weights and two moments in float32, and a teacher in bfloat16, split over all devices: nothing
    # is whole on one of them.
    state = 12 * num_parameters(run.model) / mesh.size
    if (teacher := run.stages[stage].reference_model) is not None:
        state += 2 * num_parameters(teacher) / mesh.size
    assert state < memory.argument_size_in_bytes < 1.02 * state + 2**20
    assert memory.peak_memory_in_bytes < V5P_BYTES


@pytest.mark.slow
def test_dpo_with_stored_log_probs_needs_little_more_memory_than_sft():
    """Two rows a device; a second model in memory would be 1 GiB more on each of 16 chips."""
    sft, dpo = (load_function(name)() for name in ("sft_8b", "dpo_8b"))
    mesh = make_mesh(sft.mesh, target_devices("v5p:2x2x4"))
    step = BatchStep(0, rows=32)
    peaks = [compile_step(run, 0, mesh, step).memory_analysis() for run in (sft, dpo)]
    of_sft, of_dpo = (memory.peak_memory_in_bytes for memory in peaks)
    assert of_dpo < 1.1 * of_sft
