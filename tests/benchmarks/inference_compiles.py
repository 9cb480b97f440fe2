"""The engine compiled for the machines that its models are meant for: bytes per device, roofline.

    python tests/benchmarks/inference_compiles.py [MODEL...]

Needs libtpu and the CUDA plugin, no accelerator; some minutes for each case, with all layers.
Results go to tests/benchmarks/results/inference_compiles.json, those of other models stay. Nothing
runs: bytes are the compiler's, and tokens a second are what published peaks
(`llama_jax/accelerators.py`) allow at most for rows that are all full.
"""

import dataclasses
import json
import sys
import time
from pathlib import Path

import jax

from infer.engine.ahead_of_time import (
    abstract_executables,
    bytes_per_device,
    compile_for_mesh,
    decode_roofline,
)
from infer.engine.executable_keys import DecodeKey, PrefillKey
from infer.engine.settings import GREEDY_ONLY, EngineSettings
from llama_jax.accelerators import accelerator
from llama_jax.compile_targets import target_devices
from llama_jax.config import PUBLISHED_MODELS
from llama_jax.machine_description import describe_machine
from llama_jax.quantization.recipes import RECIPES, Recipe
from sharding.mesh import make_mesh
from sharding.serving_mesh import serving_mesh_shape

RESULTS = Path(__file__).parent / "results" / "inference_compiles.json"
PREFILL_TOKENS = 2048


@dataclasses.dataclass(frozen=True)
class Case:
    """An engine for a model on some devices: so many rows of at most so many tokens, pages for all
    of them; weights that `recipe` does not quantise, and pages, in bfloat16."""

    model: str
    recipe: str | None
    target: str
    rows: int
    tokens: int
    page_size: int


CASES = (
    Case("llama31_8b", None, "h100", 3, 131072, 64),
    Case("llama31_70b", None, "v6e:2x4", 64, 4096, 128),
    Case("llama31_70b", "int8", "v6e:2x4", 64, 8192, 128),
    Case("llama31_405b", "fp8", "h100:8", 32, 4096, 64),
)


def executables_of(case: Case, *, num_layers: int | None = None):
    """The programs, of all layers or only the first few."""
    config = PUBLISHED_MODELS[case.model]
    config = dataclasses.replace(config, num_layers=num_layers or config.num_layers)
    devices = target_devices(case.target)
    settings = EngineSettings(
        row_buckets=(case.rows,),
        max_length=case.tokens,
        page_size=case.page_size,
        num_pages=case.rows * case.tokens // case.page_size,
        prefill_tokens=PREFILL_TOKENS,
        prefill_lengths=(PREFILL_TOKENS,),
    )
    mesh = make_mesh(serving_mesh_shape(config, len(devices)), devices)
    recipe = RECIPES[case.recipe] if case.recipe else Recipe("bfloat16", {})
    return abstract_executables(config, recipe, mesh, settings)


def keys_of(case: Case):
    return {
        "decode": DecodeKey(case.rows, GREEDY_ONLY),
        "prefill": PrefillKey(PREFILL_TOKENS, scored=False),
    }


def measure(case: Case) -> dict:
    """The compiler's bytes per device of each program, and the roofline of decoding."""
    executables = executables_of(case)
    device = executables.mesh.devices.flat[0]
    peaks = accelerator(device.device_kind)
    result = dataclasses.asdict(case) | {
        "device_kind": device.device_kind,
        "devices": executables.mesh.size,
        "memory_bytes_per_device": peaks.memory_bytes,
        "weight_bytes_per_device": bytes_per_device(executables.weights),
        "page_bytes_per_device": bytes_per_device(executables.pools),
    }
    for name, key in keys_of(case).items():
        start = time.perf_counter()
        memory = compile_for_mesh(executables, key).memory_analysis()
        needed = memory.argument_size_in_bytes + memory.temp_size_in_bytes
        needed += memory.output_size_in_bytes - memory.alias_size_in_bytes
        result[name] = {
            "argument_bytes": memory.argument_size_in_bytes,
            "temporary_bytes": memory.temp_size_in_bytes,
            "aliased_bytes": memory.alias_size_in_bytes,
            "bytes_per_device": needed,
            "fits": needed < peaks.memory_bytes,
            "compile_seconds": round(time.perf_counter() - start),
        }
    roofline = decode_roofline(executables, peaks, rows=case.rows, num_tokens=case.tokens)
    result["roofline"] = dataclasses.asdict(roofline) | {
        "bandwidth": peaks.memory_bandwidth,
        "bf16_flops": peaks.bf16_flops,
        "tokens_per_second": round(case.rows / roofline.seconds, 1),
    }
    return result


def main(models: list[str]) -> None:
    jax.config.update("jax_platforms", "cpu")
    cases = [case for case in CASES if not models or case.model in models]
    for case in cases:
        found = measure(case)
        print(json.dumps(found), flush=True)
        results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"cases": []}
        others = [
            old
            for old in results["cases"]
            if (old["model"], old["recipe"]) != (case.model, case.recipe)
        ]
        order = [(known.model, known.recipe) for known in CASES]
        ours = sorted([*others, found], key=lambda one: order.index((one["model"], one["recipe"])))
        described = describe_machine(("jax", "jaxlib", "libtpu", "jax-cuda13-plugin"))
        command = "python tests/benchmarks/inference_compiles.py"
        RESULTS.write_text(
            json.dumps({"command": command} | described | {"cases": ours}, indent=2) + "\n"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
