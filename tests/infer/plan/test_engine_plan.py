"""The engine's programs for accelerators that are not here: what they hold, read and write.

All layers compile in a minute or so (`tests/benchmarks/plans.py`, results beside); here a few
layers of the real widths do.
"""

import dataclasses
import re

import ml_dtypes
import numpy as np
import pytest

from infer.engine.executable_keys import DecodeKey, PrefillKey
from infer.engine.settings import GREEDY_ONLY
from infer.plan.engine_plan import Serving, plan_decode, plan_prefill, planned_executables
from infer.plan.engine_programs import compile_for_mesh, decode_roofline
from llama_jax import costs
from llama_jax.accelerators import accelerator
from llama_jax.config import LLAMA_31_8B, LLAMA_31_70B, LLAMA_31_405B, TINY
from llama_jax.errors import InputError
from sharding.pod_plan.memory import bytes_per_device
from sharding.pod_plan.plan_fields import plan_fields
from sharding.topology import find_topology

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
NAMES = {"name": "tiny", "command": "llama-jax plan tiny"}


def executables_of(config, topology, serving, num_layers):
    config = dataclasses.replace(config, num_layers=num_layers)
    return planned_executables(config, serving, topology)


def expected_weights(config, recipe: str | None, num_devices: int) -> float:
    """Of one device: norms lie on each, and so do the scales of `output` and `down`, whose inputs
    are what devices divide."""
    everywhere = costs.weight_parts(config, BFLOAT16, recipe)["norms"]
    scales = {None: 0, "fp8": 4 * (config.num_layers - 2), "int8": 2 * 4 * config.num_layers}
    everywhere += scales[recipe] * config.model_dim
    return (costs.weight_bytes(config, BFLOAT16, recipe) - everywhere) / num_devices + everywhere


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
    ("config", "serving", "num_layers", "target", "program", "plugin", "temporary"),
    [
        (LLAMA_31_8B, Serving("bfloat16", 3, 131072), 2, "h100", "decode", "cuda", 9e6),
        (LLAMA_31_8B, Serving("bfloat16", 3, 131072), 2, "h100", "prefill", "cuda", 1.4e9),
        (LLAMA_31_405B, Serving("fp8", 32, 4096), 3, "h100:8", "decode", "cuda", 60e6),
        (LLAMA_31_70B, Serving("bfloat16", 64, 4096), 1, "v6e:2x4", "decode", "tpu", 160e6),
    ],
    ids=["8b-128k-decode", "8b-128k-prefill", "405b-fp8", "70b-v6e"],
)
def test_pages_are_written_where_they_are(
    config, serving, num_layers, target, program, plugin, temporary
):
    pytest.importorskip({"cuda": "jax_plugins.xla_cuda13", "tpu": "libtpu"}[plugin])
    executables = executables_of(config, find_topology(target), serving, num_layers)
    settings = executables.settings
    key = (
        DecodeKey(serving.rows, GREEDY_ONLY)
        if program == "decode"
        else PrefillKey(settings.prefill_tokens, scored=False)
    )
    compiled = compile_for_mesh(executables, key)
    memory = compiled.memory_analysis()
    weights, pages = (bytes_per_device(x) for x in (executables.weights, executables.pools))
    recipe = None if serving.recipe == "bfloat16" else serving.recipe
    assert weights == expected_weights(executables.config, recipe, executables.mesh.size)
    others = memory.argument_size_in_bytes - weights - pages  # tables, and what a row asks for
    assert others < 4e6
    if program == "decode":  # a prefill has no use for the head, nor for all of the last block
        assert others >= 0
    assert memory.alias_size_in_bytes >= pages
    # Nothing is as large as the pages of a layer, and no layer needs memory of its own: so a few
    # tell of all.
    assert memory.temp_size_in_bytes < temporary
    shard = executables.pools.model[0].pages
    hlo = compiled.as_text()
    assert copies_of(shard.sharding.shard_shape(shard.shape), hlo) == []
    if serving.recipe == "fp8":
        # FP8 numbers go into the matrix units as they are, and no weight is gathered.
        assert "f8e4m3fn[6656,16384]" in hlo
        weights = ("[53248,16384]", "[16384,53248]", "[128256,16384]", "[16384,128,128]")
        assert not any(shape in hlo for shape in weights)


def test_rows_that_need_many_products_are_bound_by_them():
    pytest.importorskip("jax_plugins.xla_cuda13")
    serving = Serving(rows=3, max_length=131072)
    executables = executables_of(LLAMA_31_8B, find_topology("h100"), serving, 2)
    peaks = accelerator("NVIDIA H100 80GB HBM3")
    few = decode_roofline(executables, peaks, rows=1, num_tokens=1)
    many = decode_roofline(executables, peaks, rows=2048, num_tokens=1)
    assert (few.bound, many.bound) == ("memory", "compute")
    assert few.flops * 2048 == many.flops
    assert many.seconds == many.flops / peaks.bf16_flops


def tiny_plan(make):
    pytest.importorskip("jax_plugins.xla_cuda13")
    topology = find_topology("h100:2")
    serving = Serving(rows=4, max_length=128)
    return make(planned_executables(TINY, serving, topology), serving, topology, **NAMES)


def test_a_plan_of_decoding():
    fields = plan_fields(tiny_plan(plan_decode))
    assert (fields["program"], fields["mesh"]["tensor"], fields["rows"]) == ("decode", 2, 4)
    assert fields["fits"] and fields["tokens_per_step"] == 4
    weights = expected_weights(TINY, None, 2)
    of_a_row = 128 * costs.kv_bytes_per_token(TINY, BFLOAT16)
    groups = fields["memory"]["groups"]
    assert (groups["weights"], groups["pages"]) == (weights, 4 * of_a_row / 2)
    # A token of each row, with all products, and one turn of attention over 512 places of a cache;
    # attention by formula beside it.
    flops = fields["flops_per_device"]
    assert flops["model_full"] == 4 * costs.forward_flops_per_token(TINY, 128) / 2
    products = 4 * 2 * costs.matmul_parameters(TINY) / 2
    turn = TINY.num_layers * 4 * TINY.num_heads * TINY.head_dim * 4 * 512 / 2
    assert products + turn <= flops["executed_products"] < 1.05 * (products + turn)
    attention = TINY.num_layers * 4 * TINY.num_heads * TINY.head_dim * 4 * 128 / 2
    assert flops["executed_kernels"] == attention
    # Two sums a layer over the two devices, and what the sampler asks of all words.
    sums = [one for one in fields["collectives"] if one["kind"] == "all-reduce"]
    assert sum(one["count"] for one in sums) >= 2 * TINY.num_layers
    assert all(one["axes"] == ["tensor"] for one in fields["collectives"])
    seconds = fields["step_seconds"]
    assert seconds["least_by_memory"] <= seconds["predicted"] <= seconds["slow"]
    assert "attention is counted by formula" in fields["notes"][0]


@pytest.mark.slow
def test_a_plan_of_a_prompt():
    fields = plan_fields(tiny_plan(plan_prefill))
    tokens = fields["tokens_per_step"]
    assert (fields["program"], tokens) == ("prefill", 2048)
    assert fields["flops_per_device"]["model_causal"] < fields["flops_per_device"]["model_full"]
    assert fields["fits"] and fields["step_seconds"]["predicted"] > 0


@pytest.mark.parametrize(
    ("serving", "words"),
    [
        (Serving(rows=0, max_length=128), "--rows must be at least 1"),
        (Serving(max_length=10**6), "--max-length 1000000: must be from a page of 64 tokens"),
        (Serving("int3", max_length=128), "recipe 'int3' is not one of"),
    ],
)
def test_what_no_engine_can_be(serving, words):
    pytest.importorskip("jax_plugins.xla_cuda13")
    with pytest.raises(InputError, match=words):
        planned_executables(TINY, serving, find_topology("h100"))
