"""The benchmark on a tiny model: both sides do the same work, and the report adds up."""

import json

import numpy as np
import pytest

import infer.benchmark
import llama_jax.machine_roofline
from infer.benchmark import Case, bench_infer
from llama_jax.__main__ import main


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(llama_jax.machine_roofline, "_SECONDS", 0.01)
    monkeypatch.setattr(llama_jax.machine_roofline, "_READ_BYTES", 1 << 20)
    monkeypatch.setattr(llama_jax.machine_roofline, "_MATMUL_SIZE", 64)
    cases = (Case("prefill", 2, 16, 0), Case("decode", 2, 8, 4))
    monkeypatch.setattr(infer.benchmark, "CASES", cases)
    monkeypatch.setattr(infer.benchmark, "_DTYPES", ("float32",))


def test_report(base_checkpoint, tmp_path, quick, capsys):
    pytest.importorskip("transformers")
    output = tmp_path / "result.json"
    bench_infer(str(base_checkpoint), output=output, repetitions=2)
    result = json.loads(output.read_text())
    assert len(result["rows"]) == 2 * 3 and set(result["ratio_of_bests"]) == {
        "prefill 2x16",
        "decode, batch 2",
    }
    for row in result["rows"]:
        assert len(row["seconds"]) == 2 and row["fraction_of_peak"] > 0
        tokens = 32 if row["case"].startswith("prefill") else 8
        np.testing.assert_allclose(row["tokens_per_second"], tokens / min(row["seconds"]))
    assert {"processor", "jax", "torch", "transformers"} <= result["machine"].keys()
    assert "ratio" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--repetitions", "0"], "--repetitions"),
        (["--output", "/nowhere/x.json"], "/nowhere/x.json"),
    ],
)
def test_bad_arguments(base_checkpoint, capsys, arguments, message):
    with pytest.raises(SystemExit) as stop:
        main(["bench", "infer", str(base_checkpoint), *arguments])
    assert stop.value.code == 2 and message in capsys.readouterr().err
