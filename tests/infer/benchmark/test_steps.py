"""The steps suite on a tiny model: both sides do the same work, and the rows add up."""

import json

import numpy as np
import pytest

import infer.benchmark.steps
from infer.benchmark.command import bench_infer
from infer.benchmark.steps import Case


def test_report(base_checkpoint, tmp_path, quick_peaks, monkeypatch, capsys):
    pytest.importorskip("transformers")
    cases = (Case("prefill", 2, 16, 0), Case("decode", 2, 8, 4))
    monkeypatch.setattr(infer.benchmark.steps, "CASES", cases)
    output = tmp_path / "result.json"
    bench_infer(
        str(base_checkpoint),
        suites=("steps",),
        peers=("transformers",),
        dtypes=("float32",),
        output=output,
        repetitions=2,
    )
    result = json.loads(output.read_text())
    steps = result["steps"]
    assert len(steps["rows"]) == 2 * 3 and set(steps["ratio_of_bests"]) == {
        "prefill 2x16",
        "decode, batch 2",
    }
    for row in steps["rows"]:
        assert len(row["seconds"]) == 2 and row["fraction_of_peak"] > 0
        tokens = 32 if row["case"].startswith("prefill") else 8
        np.testing.assert_allclose(row["tokens_per_second"], tokens / min(row["seconds"]))
    assert {"processor", "jax", "torch", "transformers"} <= result["machine"].keys()
    assert result["command"].endswith(
        "base --suites steps --peers transformers --dtypes float32 --repetitions 2"
    )
    assert "ratio" in capsys.readouterr().out
