"""Compiles the real configs' steps for TPU pods and records the bytes per device, remat by remat.

    python tests/benchmarks/pod_memory.py

Needs libtpu and no TPU; some minutes a compilation. Results go to
tests/benchmarks/results/pod_memory.json. `peak` is the compiler's own figure; the arguments
(weights, moments, batch) are part of it.
"""

import dataclasses
import json
import time
from pathlib import Path

import jax
from train.ahead_of_time import compile_step

from llama_jax.compile_targets import target_devices
from llama_jax.machine_description import describe_machine
from llama_jax.model import REMAT_POLICIES
from sharding.mesh import make_mesh
from train.config import BatchStep
from train.run_source import load_function

RESULTS = Path(__file__).parent / "results" / "pod_memory.json"
GIB = 2**30
# Run, stage at 8,192 tokens a row, topology.
WHOLE = (("pretrain_8b", 1, "v5p:2x2x4"), ("pretrain_405b", 1, "v5p:16x16x16"))
# One row of 8,192 a device: what a stage of post-training takes beside SFT.
POST_TRAINING = ("sft_8b", "dpo_8b", "reward_8b")
BY_POLICY = ("pretrain_8b", 1, "v5p:2x2x4")


def main() -> None:
    jax.config.update("jax_platforms", "cpu")
    results = {"command": "python tests/benchmarks/pod_memory.py"}
    results |= describe_machine(("jax", "jaxlib", "libtpu", "flax", "optax"))
    results["configs"] = [measure(*case) for case in WHOLE]
    results["one row of 8,192 a device"] = [
        measure(*BY_POLICY, remat=policy, one_row=True) for policy in REMAT_POLICIES
    ]
    results["post-training, one row of 8,192 a device"] = [
        measure(name, 0, "v5p:2x2x4", one_row=True) for name in POST_TRAINING
    ]
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")


def measure(name: str, stage: int, topology: str, *, remat: str | None = None, one_row=False):
    """The compiler's bytes per device, in GiB."""
    run = load_function(name)()
    run = dataclasses.replace(run, remat=remat or run.remat)
    mesh = make_mesh(run.mesh, target_devices(topology))
    if one_row:
        batch_step = BatchStep(0, mesh.shape["data"] * mesh.shape["fsdp"])
    else:
        batch_step = run.stages[stage].batch[-1]
    start = time.perf_counter()
    result = {"run": name, "topology": topology, "mesh": str(run.mesh), "remat": run.remat}
    result |= {"rows": batch_step.rows, "micro_batches": batch_step.micro_batches}
    memory = compile_step(run, stage, mesh, batch_step).memory_analysis()
    result |= {
        "compile_seconds": round(time.perf_counter() - start),
        "arguments_gib": round(memory.argument_size_in_bytes / GIB, 2),
        "peak_gib": round(memory.peak_memory_in_bytes / GIB, 2),
    }
    print(json.dumps(result), flush=True)
    return result


if __name__ == "__main__":
    main()
