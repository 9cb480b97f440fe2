"""`llama-jax batch` with the real engine, killed 20 times: the answers are those of one quiet run.

Two processes share the job each time, and each is killed at a moment of its own: while it imports,
loads, compiles, answers. Compiled programs are kept in JAX's cache, as a user would.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from infer.batch.job import Job

ROOT = Path(__file__).parents[3]
NUM_ROWS, ROUNDS = 120, 10


def row(number):
    if number % 11 == 0:
        return {"prompt": "x", "temperature": -1}
    body = {"prompt": "Hello " * (number % 7 + 1), "temperature": number % 2, "max_tokens": 24}
    if number % 3:
        return body
    url = "/v1/completions"
    body |= {"n": 2, "logprobs": 1}
    return {"custom_id": f"row {number}", "method": "POST", "url": url, "body": body}


@pytest.fixture(scope="module")
def start(chat_checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("job")
    source = folder / "in.jsonl"
    source.write_text("".join(json.dumps(row(number)) + "\n" for number in range(NUM_ROWS)))
    settings = {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "",
        "JAX_COMPILATION_CACHE_DIR": str(folder / "cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    }

    def start(output):
        command = [sys.executable, "-m", "llama_jax", "batch", chat_checkpoint, source, output]
        return subprocess.Popen(
            [*command, "--rows", "2", "--no-roofline"],
            cwd=ROOT, text=True, env=os.environ | settings,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    return start


def kept_lines(output):
    return sum(path.read_bytes().count(b"\n") for path in Job(output).parts.glob("*.jsonl"))


def lines_of(output):
    """The answers and the failures, with the date of the job's first start taken out."""
    job = Job(output)
    created = json.loads(job.manifest_path.read_text())["created"]
    text = job.output.read_text() + job.errors.read_text()
    return text.replace(f'"created": {created}', '"created": 0')


@pytest.mark.slow
def test_the_answers_of_a_killed_job_are_those_of_a_quiet_one(start, tmp_path):
    quiet, output = tmp_path / "quiet.jsonl", tmp_path / "killed.jsonl"
    process = start(quiet)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 1 and quiet.exists(), errors

    chance, killed = random.Random(0), 0
    for number in range(ROUNDS):
        processes = [start(output), start(output)]
        try:
            begun = time.monotonic()
            goal = NUM_ROWS * (number + 1) // (ROUNDS + 1)
            # One dies once some more rows are kept, the other a moment before or after.
            while kept_lines(output) < goal and time.monotonic() - begun < 300:
                assert processes[0].poll() is None, processes[0].communicate()
                time.sleep(0.001)
                if processes[1].poll() is None and chance.random() < 1e-4:
                    processes[1].kill()
            processes[0].kill()
            time.sleep(chance.uniform(0.0, 0.05))
            processes[1].kill()
            for process in processes:
                process.communicate(timeout=60)
                killed += process.returncode == -signal.SIGKILL
        finally:
            for process in processes:
                process.kill()
                process.communicate()
        assert not output.exists()
    assert killed == 2 * ROUNDS
    process = start(output)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 1 and output.exists(), errors
    assert "going on: " in errors
    assert lines_of(output) == lines_of(quiet)
