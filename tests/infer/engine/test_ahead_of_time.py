"""The engine for accelerators that are not here: it fits, and pages are written where they are.

All layers compile in minutes (`tests/benchmarks/inference_compiles.py`, results beside); here a few
layers of the real widths do.
"""

import importlib.util
import json
import re
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from infer.engine.ahead_of_time import bytes_per_device, compile_for_mesh, decode_roofline
from llama_jax import costs
from llama_jax.accelerators import accelerator
from llama_jax.config import PUBLISHED_MODELS

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
RECORDED = json.loads((BENCHMARKS / "results" / "inference_compiles.json").read_text())["cases"]
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)

_spec = importlib.util.spec_from_file_location("compiles", BENCHMARKS / "inference_compiles.py")
compiles = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(compiles)
IDS = [f"{case.model}-{case.recipe}-{case.target}" for case in compiles.CASES]


def expected_weights(config, recipe: str | None, num_devices: int) -> float:
    """Of one device: norms lie on each, and so do the scales of `output` and `down`, whose inputs
    are what devices divide."""
    everywhere = costs.weight_parts(config, BFLOAT16, recipe)["norms"]
    scales = {None: 0, "fp8": 4 * (config.num_layers - 2), "int8": 2 * 4 * config.num_layers}
    everywhere += scales[recipe] * config.model_dim
    return (costs.weight_bytes(config, BFLOAT16, recipe) - everywhere) / num_devices + everywhere


@pytest.mark.parametrize(
    ("case", "found"), list(zip(compiles.CASES, RECORDED, strict=True)), ids=IDS
)
def test_what_was_recorded_of_all_layers_agrees_with_the_formulas(case, found):
    config, peaks = PUBLISHED_MODELS[case.model], accelerator(found["device_kind"])
    assert (found["model"], found["recipe"], found["rows"], found["tokens"]) == (
        case.model, case.recipe, case.rows, case.tokens,
    )  # fmt: skip
    weights = expected_weights(config, case.recipe, found["devices"])
    assert found["weight_bytes_per_device"] == weights
    of_a_row = case.tokens * costs.kv_bytes_per_token(config, BFLOAT16)
    pages = case.rows * of_a_row / found["devices"]
    assert found["page_bytes_per_device"] == pages
    for program in ("decode", "prefill"):
        assert found[program]["fits"]
        assert found[program]["bytes_per_device"] < peaks.memory_bytes
        assert found[program]["aliased_bytes"] >= pages
    # Each weight is read, but for the embedding, and each page.
    embedding = config.vocab_size * config.model_dim * 2 / found["devices"]
    read = weights - embedding + pages
    assert found["roofline"]["read_bytes"] == read
    assert found["roofline"]["bound"] == "memory"
    most = case.rows * peaks.memory_bandwidth / read
    assert found["roofline"]["tokens_per_second"] == pytest.approx(most, abs=0.05)


def copies_of(shape: tuple[int, ...], hlo: str) -> list[str]:
    """Instructions that make another array of this shape."""
    dims = ",".join(map(str, shape))
    made = re.compile(rf"= \w+\[{dims}\]\S* (copy|copy-start|convert|transpose|broadcast)\(")
    return [line.strip() for line in hlo.splitlines() if made.search(line)]


def test_a_copy_would_be_seen():
    line = "  %copy.1 = bf16[4096,64,2,128]{3,2,1,0:T(2,128)} copy(%param.1)"
    assert copies_of((4096, 64, 2, 128), line) and not copies_of((4096, 64, 2, 64), line)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("index", "num_layers", "program", "plugin"),
    [
        (0, 2, "decode", "jax_plugins.xla_cuda13"),
        (0, 2, "prefill", "jax_plugins.xla_cuda13"),
        (3, 3, "decode", "jax_plugins.xla_cuda13"),
        (1, 1, "decode", "libtpu"),
    ],
    ids=["8b-128k-decode", "8b-128k-prefill", "405b-fp8", "70b-v6e"],
)
def test_pages_are_written_where_they_are(index, num_layers, program, plugin):
    pytest.importorskip(plugin)
    case, recorded = compiles.CASES[index], RECORDED[index]
    executables = compiles.executables_of(case, num_layers=num_layers)
    compiled = compile_for_mesh(executables, compiles.keys_of(case)[program])
    memory = compiled.memory_analysis()
    weights, pages = (bytes_per_device(x) for x in (executables.weights, executables.pools))
    assert weights == expected_weights(executables.config, case.recipe, executables.mesh.size)
    others = memory.argument_size_in_bytes - weights - pages  # tables, and what a row asks for
    assert others < 4e6
    if program == "decode":  # a prefill has no use for the head, nor for all of the last block
        assert others >= 0
    assert memory.alias_size_in_bytes >= pages
    # Nothing is as large as the pages of a layer, and no layer needs memory of its own: so a few
    # tell of all.
    assert memory.temp_size_in_bytes < 1.1 * recorded[program]["temporary_bytes"] + 16e6
    shard = executables.pools.model[0].pages
    assert copies_of(shard.sharding.shard_shape(shard.shape), compiled.as_text()) == []


def test_rows_that_need_many_products_are_bound_by_them():
    pytest.importorskip("jax_plugins.xla_cuda13")
    executables = compiles.executables_of(compiles.CASES[0], num_layers=2)
    peaks = accelerator("NVIDIA H100 80GB HBM3")
    few = decode_roofline(executables, peaks, rows=1, num_tokens=1)
    many = decode_roofline(executables, peaks, rows=2048, num_tokens=1)
    assert (few.bound, many.bound) == ("memory", "compute")
    assert few.flops * 2048 == many.flops
    assert many.seconds == many.flops / peaks.bf16_flops
