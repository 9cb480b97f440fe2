"""A round of real commands: a policy is sampled, a reward model chooses, what it chose tunes the
next policy. Killed in a training it ends with the same bits."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from llama_jax.checkpoints.load import load_checkpoint

from .real_rounds import write

ROOT = Path(__file__).parents[3]
RUN = f"{Path(__file__).parent / 'real_rounds.py'}:exclamations"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rounds")
    write(folder)
    return folder


def start(folder, *arguments):
    environment = {
        "PYTHONPATH": str(ROOT),
        "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=2",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    return subprocess.Popen(
        [sys.executable, "-m", "llama_jax", "post-train", RUN, *arguments],
        cwd=folder,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    """Standard output of a process that ends well."""
    said, errors = process.communicate(timeout=1800)
    assert process.returncode == 0, errors
    return said


def last_step(run):
    path = run / "metrics.jsonl"
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    records = [json.loads(line) for line in lines if line.endswith(b"\n")]
    return max((one["step"] for one in records if one["kind"] == "train"), default=0)


def test_killed_in_a_training_it_ends_with_the_same_bits(folder):
    finish(start(folder, "whole", "--until", "round-1/pairs"))
    shutil.copytree(folder / "whole", folder / "killed")
    said = finish(start(folder, "whole"))
    assert "whole/round-1/policy: the model that round 1 ends with" in said
    assert "accuracy" in said and "round-1" in said

    chosen = (folder / "whole/round-1/chosen.jsonl").read_text().splitlines()
    assert chosen and json.loads(chosen[0])["provenance"]["score_model"] == "reward"

    process = start(folder, "killed")
    deadline = time.monotonic() + 600
    while last_step(folder / "killed/round-1/dpo") < 5:
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.01)
    process.kill()
    process.communicate()
    training = int((folder / "killed/.lock").read_text().split()[0])
    os.kill(training, signal.SIGKILL)
    while Path(f"/proc/{training}").exists():
        time.sleep(0.01)
    saved = sorted(path.name for path in (folder / "killed/round-1/dpo/checkpoints").iterdir())
    assert saved, "killed before there was anything to go on from"
    assert not (folder / "killed/round-1/dpo/weights").exists()
    finish(start(folder, "killed"))

    for name in ("round-1/sft/weights", "round-1/dpo/weights", "round-1/policy"):
        (_, whole), (_, killed) = (
            load_checkpoint(folder / output / name) for output in ("whole", "killed")
        )
        same = jax.tree.map(lambda left, right: bool(np.array_equal(left, right)), whole, killed)
        assert all(jax.tree.leaves(same)), name
    whole, killed = (
        json.loads((folder / output / "round-1/evaluation/results.json").read_text())["tasks"]
        for output in ("whole", "killed")
    )
    assert whole == killed and whole["questions"]["questions"] == 13
