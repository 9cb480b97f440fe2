"""The kernels' benchmark, tiny: it measures what it says, and what is refused has its reason."""

import json
import math

import jax
import numpy as np
import pytest

from llama_jax.__main__ import main
from llama_jax.kernels import (
    benchmark_attention,
    benchmark_decode,
    benchmark_gemm,
    benchmark_timing,
)
from llama_jax.kernels.attention.implementations import IMPLEMENTATIONS
from llama_jax.kernels.attention.mask import causal_mask, packed_mask
from llama_jax.kernels.benchmark import bench_kernels
from llama_jax.kernels.benchmark_attention import visible_pairs
from llama_jax.kernels.benchmark_gemm import measure_gemm
from llama_jax.kernels.benchmark_table import print_measured
from llama_jax.quantization.scaled_product import IMPLEMENTATIONS as IMPLEMENTATIONS_8_BIT
from llama_jax.quantization.training_recipes import RECIPES


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(benchmark_timing, "_PROGRAM_SECONDS", 0.0)
    monkeypatch.setattr(benchmark_decode, "_BYTES_READ", {"cpu": 1 << 16})


def test_pairs_are_those_that_the_mask_leaves():
    assert visible_pairs(causal_mask(1, 6)) == 6 * 7 // 2
    assert visible_pairs(packed_mask(np.array([[1, 1, 2, 2, 2]]))) == 3 + 6


def test_attention_beside_torch(tmp_path, capsys, monkeypatch):
    pytest.importorskip("torch")
    others = {name: module for name, module in IMPLEMENTATIONS.items() if name != "reference"}
    monkeypatch.setattr(benchmark_attention, "IMPLEMENTATIONS", others)
    output = tmp_path / "result.json"
    code = bench_kernels(
        suite="attention", lengths=(16,), heads=(2, 1), head_dim=8, repetitions=1, output=output
    )
    assert code == 0
    result = json.loads(output.read_text())
    assert {"command", "machine", "device"} <= result.keys()
    measured = [row for row in result["rows"] if "seconds" in row]
    names = [(row["name"], row["mask"], row["pass"]) for row in measured]
    assert sorted(names) == sorted(
        (name, mask, which)
        for name in ("chunked", "torch")
        for mask in ("causal", "8 documents")
        for which in ("forward", "backward")
    )
    for row in measured:
        pairs = 16 * 17 // 2 if row["mask"] == "causal" else 8 * 3
        operations = 4 * 2 * 8 * pairs * (2.5 if row["pass"] == "backward" else 1)
        np.testing.assert_allclose(row["tflops"] * row["seconds"] * 1e12, operations)
        if row["name"] == "torch":
            assert row["ratio_to_peer"] == 1
    refused = {row["name"] for row in result["rows"] if "refused" in row}
    assert refused == {"mosaic_gpu", "cudnn", "splash", "flash_tpu"}
    printed = capsys.readouterr()
    assert "not measured: cudnn" in printed.out and "chunked, backward" in printed.err


def test_products_of_training_with_and_without_quantising(monkeypatch):
    ways = {name: IMPLEMENTATIONS_8_BIT[name] for name in ("xla", "mosaic_gpu")}
    monkeypatch.setattr(benchmark_gemm, "IMPLEMENTATIONS", ways)
    recipes = {name: RECIPES[name] for name in ("fp8_rowwise", "int8")}
    monkeypatch.setattr(benchmark_gemm, "RECIPES", recipes)
    rows = list(measure_gemm({"layer": (8, 16)}, 4, jax.devices()[0], repetitions=1))
    measured = {
        (row["product"], row["name"], row.get("quantisation")): row
        for row in rows
        if "seconds" in row
    }
    assert measured["wgrad", "bfloat16", None]["mnk"] == [8, 16, 4]
    assert measured["dgrad", "bfloat16", None]["mnk"] == [4, 16, 8]
    for product in ("fprop", "dgrad", "wgrad"):
        plain = measured[product, "bfloat16", None]["seconds"]
        for which in ("included", "excluded"):
            row = measured[product, "fp8_rowwise by xla", which]
            assert math.prod(row["mnk"]) == 4 * 8 * 16
            np.testing.assert_allclose(row["ratio_to_bfloat16"] * row["seconds"], plain)
    assert ("wgrad", "int8 by xla", "included") not in measured
    reasons = {row["name"]: row["refused"] for row in rows if "refused" in row}
    assert "Hopper" in reasons["fp8_rowwise by mosaic_gpu fast"]
    print_measured({"rows": rows, "device": "cpu"})


def test_what_decoding_reads():
    device, options = jax.devices()[0], {"bandwidth": 1e9, "repetitions": 1}
    rows = list(
        benchmark_decode.measure_matrix_vector({"layer": (128, 256)}, (1,), device, **options)
    )
    ours = {row["format"]: row for row in rows if row["name"] == "xla"}
    weights, around = 128 * 256, 2 * (128 + 256)
    scales = 4 * 128
    assert {name: row["bytes"] - around for name, row in ours.items()} == {
        "bfloat16": 2 * weights,
        "fp8": weights + scales,
        "int8": weights + scales,
        "int4": weights // 2 + 2 * scales,
    }
    for row in ours.values():
        np.testing.assert_allclose(
            row["fraction_of_copy_bandwidth"] * row["seconds"], row["bytes"] / 1e9
        )
    assert {row["name"] for row in rows if "refused" in row} == {
        "weight_only_gpu",
        "weight_only_tpu",
    }
    rows = list(benchmark_decode.measure_paged_attention((64,), 2, (4, 2, 8), device, **options))
    measured = {row["format"]: row["bytes"] for row in rows if "seconds" in row}
    queries = 2 * 2 * 2 * 4 * 8
    assert measured["bfloat16"] == 2 * 64 * 2 * 2 * 16 + queries
    assert measured["int8"] == measured["float8_e4m3fn"] == 2 * 64 * 2 * 2 * (8 + 4) + queries
    print_measured({"rows": rows, "device": "cpu"})


def test_a_kernel_that_fails_is_a_line_and_not_the_end():
    def out_of_memory():
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: no\nmore")

    assert benchmark_timing.attempt(out_of_memory) == "RESOURCE_EXHAUSTED: no"
    rows = [{"suite": "attention", "name": "reference", "pass": "forward", "failed": "no"}]
    print_measured({"rows": rows, "device": "cpu"})


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--repetitions", "0"], "--repetitions"),
        (["--heads", "3", "2"], "--heads 3 2"),
        (["--output", "/nowhere/x.json"], "/nowhere/x.json"),
        (["--target", "h1000"], "target 'h1000'"),
    ],
)
def test_bad_arguments(capsys, arguments, message):
    with pytest.raises(SystemExit) as stop:
        main(["bench", "kernels", *arguments])
    assert stop.value.code == 2 and message in capsys.readouterr().err
