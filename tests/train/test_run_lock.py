"""One training at a time in a folder, whichever way the one before has ended."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from llama_jax.errors import InputError
from train.run_lock import RunLock

ROOT = Path(__file__).parents[2]
HOLD = """
import sys, time
from train.run_lock import RunLock
with RunLock(sys.argv[1]) as lock:
    lock.take()
    print("taken", flush=True)
    time.sleep(600)
"""
# A process of a job of two, which starts in the folder of its first argument.
JOB = """
import os, sys
import jax
from train.process_zero import on_process_zero
from train.run_lock import RunLock
folder, port, index = sys.argv[1:]
jax.distributed.initialize(f"localhost:{port}", 2, int(index))
with RunLock(folder) as lock:
    try:
        on_process_zero(lock.take)
    except (OSError, ValueError) as error:
        # In one piece, between lines of its own: Gloo says on standard output whom it has found.
        os.write(1, f"\\ntold {type(error).__name__} {error}\\n".encode())
"""


def start(script, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def holder(tmp_path):
    """Another process, which has the folder `run`."""
    process = start(HOLD, tmp_path / "run")
    with process:
        assert process.stdout.readline() == "taken\n"
        yield process
        process.kill()


def test_a_second_process_is_refused_until_the_first_is_gone(tmp_path, holder):
    run = tmp_path / "run"
    with RunLock(run) as lock, pytest.raises(InputError) as error:
        lock.take()
    assert str(error.value).startswith(
        f"{run}: another process trains in it (pid {holder.pid}); wait"
    )
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    for _ in range(2):  # and what was given back can be taken again
        with RunLock(run) as lock:
            lock.take()


def test_all_processes_of_a_job_learn_that_it_may_not_start(tmp_path, holder):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    job = [start(JOB, tmp_path / "run", port, index) for index in range(2)]
    try:
        said = [process.communicate(timeout=120)[0] for process in job]
    finally:
        for process in job:
            process.kill()
    first, second = (
        [line for line in lines.splitlines() if line.startswith("told ")] for lines in said
    )
    assert len(first) == len(second) == 1, said
    assert first[0].startswith("told InputError") and f"(pid {holder.pid})" in first[0]
    assert second[0].startswith("told OSError process 0 could not go on")
