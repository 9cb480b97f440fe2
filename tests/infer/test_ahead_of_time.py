"""A decode step of 405B in FP8 for one node of eight H100: the compiler's bytes per device.

The whole of it compiles in minutes (`tests/benchmarks/quantized_memory.py`, results beside); here
five layers of it tell the bytes of a layer, from which those of 126 follow.
"""

import dataclasses
import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from infer.ahead_of_time import compile_decode_step
from llama_jax import costs
from llama_jax.compile_targets import target_devices
from llama_jax.config import LLAMA_31_405B
from llama_jax.quantization.recipes import RECIPES
from sharding.mesh import MeshShape, make_mesh

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results" / "quantized_memory.json"
ROWS, SLOTS = 8, 8192
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


def _compile(num_layers: int):
    config = dataclasses.replace(LLAMA_31_405B, num_layers=num_layers)
    mesh = make_mesh(MeshShape(fsdp=1, tensor=8), target_devices("h100:8"))
    return config, compile_decode_step(
        config, RECIPES["fp8"], mesh, batch_size=ROWS, num_slots=SLOTS
    )


def _expected_arguments(config) -> float:
    """Weights and cache over eight devices; norms and scales of `down` lie on each."""
    recipe = RECIPES["fp8"]
    whole = costs.weight_bytes(config, BFLOAT16, recipe)
    whole += ROWS * SLOTS * costs.kv_bytes_per_token(config, BFLOAT16)
    num_quantized = config.num_layers - 2
    everywhere = costs.weight_parts(config, BFLOAT16, recipe)["norms"]
    everywhere += num_quantized * 4 * config.model_dim
    return (whole - everywhere) / 8 + everywhere


@pytest.mark.slow
def test_a_decode_step_of_405b_in_fp8_fits_eight_h100():
    pytest.importorskip("jax_plugins.xla_cuda13")
    found = {}
    for num_layers in (3, 5):
        config, compiled = _compile(num_layers)
        memory = compiled.memory_analysis()
        found[num_layers] = memory
        # Tokens, and the counters of the cache.
        assert 0 <= memory.argument_size_in_bytes - _expected_arguments(config) < 1024
    # A step needs little beside, and no more for more layers: nothing is copied or multiplied out.
    assert found[5].temp_size_in_bytes < 1.05 * found[3].temp_size_in_bytes < 64e6
    # The cache is updated in place.
    new = found[5].output_size_in_bytes - found[5].alias_size_in_bytes
    assert new < 1e6
    assert _expected_arguments(LLAMA_31_405B) + found[5].temp_size_in_bytes + new < 80e9
    # FP8 numbers go into the matrix units as they are, and no weight is gathered.
    hlo = compiled.as_text()
    assert "f8e4m3fn[6656,16384]" in hlo
    weights = ("[53248,16384]", "[16384,53248]", "[128256,16384]", "[16384,128,128]")
    assert not any(shape in hlo for shape in weights)


def test_the_recorded_compilation_of_all_126_layers_agrees_with_the_formula():
    cases = json.loads(RESULTS.read_text())["cases"]
    (case,) = [case for case in cases if case["model"] == "llama31_405b"]
    assert case["weight_bytes"] == costs.weight_bytes(LLAMA_31_405B, BFLOAT16, "fp8")
    assert (case["rows"], case["slots"]) == (ROWS, SLOTS)
    assert abs(case["argument_bytes_per_device"] - _expected_arguments(LLAMA_31_405B)) < 1024
    assert all(each["fits"] for each in cases)
