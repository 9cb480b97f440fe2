"""What is said of kernels compiled for a device that is not here."""

import pytest

from llama_jax.kernels import benchmark_compiles
from llama_jax.kernels.benchmark_compiles import compile_kernels, gpu_cases, tpu_cases
from llama_jax.kernels.benchmark_table import print_compiled


def only(monkeypatch, cases, name):
    monkeypatch.setattr(benchmark_compiles, cases.__name__, lambda: {name: cases()[name]})


def test_a_kernel_for_hopper(monkeypatch, capsys):
    pytest.importorskip("jax_plugins.xla_cuda13")
    only(monkeypatch, gpu_cases, "fp8 gemm promoted bfloat16")
    (row,) = compile_kernels("h100")
    assert row["spill_bytes"] == 0 and row["registers"] > 0 and row["warnings"] == []
    assert row["instructions"]["wgmma.mma_async"] > 0
    assert row["instructions"]["cp.async.bulk.tensor"] > 0
    print_compiled({"kernels": [row], "target": "h100"})
    assert "wgmma" in capsys.readouterr().out


def test_a_kernel_for_tpus(monkeypatch, capsys):
    pytest.importorskip("libtpu")
    only(monkeypatch, tpu_cases, "weight_only_tpu int8, 1 tokens")
    (row,) = compile_kernels("v5e:2x2")
    assert row["compiled"] and row["kernels"] == 1 and row["temporary_bytes"] >= 0
    print_compiled({"kernels": [row], "target": "v5e:2x2"})
    assert "nothing was run" in capsys.readouterr().out


def test_what_does_not_compile_is_named(monkeypatch, capsys):
    pytest.importorskip("jax_plugins.xla_cuda13")

    def broken():
        raise NotImplementedError("no such thing\nat all")

    monkeypatch.setattr(benchmark_compiles, "gpu_cases", lambda: {"a kernel": broken})
    rows = list(compile_kernels("h100"))
    assert rows == [{"name": "a kernel", "failed": "NotImplementedError: no such thing"}]
    print_compiled({"kernels": rows, "target": "h100"})
    assert "a kernel: NotImplementedError" in capsys.readouterr().out
