"""Decode steps compiled for the GPUs that the models are meant for: bytes per device.

    python tests/benchmarks/quantized_memory.py

Needs the CUDA plugin and no GPU; some minutes for 405B. Results go to
tests/benchmarks/results/quantized_memory.json. Nothing runs: bytes are the compiler's, of arguments
(weights, cache) and of what a step needs beside them. Attention and products are plain jnp.
"""

import dataclasses
import json
import time
from pathlib import Path

import jax
import ml_dtypes
import numpy as np

from infer.ahead_of_time import compile_decode_step
from llama_jax import costs
from llama_jax.compile_targets import target_devices
from llama_jax.config import PUBLISHED_MODELS
from llama_jax.machine_description import describe_machine
from llama_jax.quantization.recipes import RECIPES, Recipe
from sharding.mesh import MeshShape, make_mesh

RESULTS = Path(__file__).parent / "results" / "quantized_memory.json"
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


@dataclasses.dataclass(frozen=True)
class Case:
    """A model on some GPUs.

    `memory` is the bytes that a GPU has, as its name says: 80 GB are 80e9. `rows` and `slots` are
    the cache.
    """

    model: str
    recipe: str | None
    target: str
    machine: str
    memory: float
    rows: int
    slots: int


CASES = (
    Case("llama31_8b", None, "h100", "one 80 GB GPU (an A100's program differs)", 80e9, 16, 8192),
    Case("llama31_8b", "int4", "h100", "one 24 GB GPU (its program differs)", 24e9, 8, 8192),
    Case("llama31_70b", None, "h100:4", "4 H100 80GB", 80e9, 16, 8192),
    Case("llama31_70b", "int8_int4", "h100", "64 GB of one GPU", 64e9, 2, 8192),
    Case("llama31_405b", "fp8", "h100:8", "8 H100 80GB", 80e9, 8, 8192),
)


def main() -> None:
    jax.config.update("jax_platforms", "cpu")
    results = {"command": "python tests/benchmarks/quantized_memory.py"}
    results |= describe_machine(("jax", "jaxlib", "jax-cuda13-plugin"))
    results["cases"] = [measure(case) for case in CASES]
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")


def measure(case: Case) -> dict:
    """The compiler's bytes per device, and those of the formulas."""
    config = PUBLISHED_MODELS[case.model]
    devices = target_devices(case.target)
    mesh = make_mesh(MeshShape(fsdp=1, tensor=len(devices)), devices)
    recipe = RECIPES[case.recipe] if case.recipe else Recipe("bfloat16", {})
    start = time.perf_counter()
    compiled = compile_decode_step(config, recipe, mesh, batch_size=case.rows, num_slots=case.slots)
    memory = compiled.memory_analysis()
    needed = memory.argument_size_in_bytes + memory.temp_size_in_bytes
    needed += memory.output_size_in_bytes - memory.alias_size_in_bytes
    result = dataclasses.asdict(case) | {
        "weight_bytes": costs.weight_bytes(config, BFLOAT16, recipe),
        "cache_bytes": case.rows * case.slots * costs.kv_bytes_per_token(config, BFLOAT16),
        "argument_bytes_per_device": memory.argument_size_in_bytes,
        "temporary_bytes_per_device": memory.temp_size_in_bytes,
        "bytes_per_device": needed,
        "fits": needed < case.memory,
        "compile_seconds": round(time.perf_counter() - start),
    }
    print(json.dumps(result), flush=True)
    return result


if __name__ == "__main__":
    main()
