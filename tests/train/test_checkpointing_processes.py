"""Checkpoints of real processes: several of them, killed ones, and a disk that runs full."""

import os
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

import llama_jax
from llama_jax.checkpoints.training_layout import saved_steps
from llama_jax.config import TINY

SCRIPT = Path(__file__).with_name("checkpoint_process.py")
job = runpy.run_path(str(SCRIPT), run_name="checkpoint_process")


@pytest.fixture
def start():
    """Starts the processes of a job; none outlives the test."""
    everything = []

    def start_job(command, run, *rest, processes=1, devices=4):
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        # The last of a flag counts.
        flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"
        started = [
            subprocess.Popen(
                [sys.executable, SCRIPT, command, run, str(i), str(processes), str(port)]
                + [str(word) for word in rest],
                env=os.environ | {"XLA_FLAGS": flags},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for i in range(processes)
        ]
        everything.extend(started)
        return started

    yield start_job
    for process in everything:
        with process:  # closes its pipes and waits
            process.kill()


def read_until(process, line):
    """Reads the standard output up to `line`. Gloo says there, too, whom it has found."""
    read = []
    while not read or read[-1] != line:
        read.append(process.stdout.readline())
        assert read[-1], f"ended after {read}: {process.stderr.read()}"


def finish(started):
    """Their last lines of standard output; fails with their standard error."""
    outputs = [process.communicate(timeout=120) for process in started]
    for process, (_, errors) in zip(started, outputs, strict=True):
        assert process.returncode == 0, errors
    return [(out.splitlines() or [""])[-1] for out, _ in outputs]


def kill_in_the_middle_of_a_save(started, run):
    """SIGKILL for all as soon as a folder with a temporary name is there, which must then stay."""
    deadline = time.monotonic() + 120
    for process in started:
        read_until(process, "begins\n")
    while not list((run / "checkpoints").glob("000002*tmp*")):
        assert time.monotonic() < deadline
        time.sleep(0.001)
    for process in started:
        process.kill()
    for process in started:
        process.wait()
    assert list((run / "checkpoints").glob("000002*tmp*")), "the save was over too soon"


@pytest.fixture
def tokenizer(tmp_path):
    file = tmp_path / "some.model"
    file.write_bytes(b"ranks")
    return file


def test_two_processes_save_and_one_goes_on_and_the_other_way_round(start, tmp_path, tokenizer):
    run = tmp_path / "run"
    finish(start("save, export", run, 1, tokenizer, processes=2))
    job["restore"](run, step=1)
    job["save"](run, step=2)
    finish(start("restore", run, 2, processes=2, devices=2))
    # The final weights, which two processes wrote together: the same bits, and nothing beside.
    config, params = llama_jax.load_checkpoint(run / "weights")
    assert config == TINY
    expected = job["make_state"](job["abstract_state"](), 1)["params"]
    jax.tree.map(np.testing.assert_array_equal, params, expected)
    assert (run / "weights" / "tokenizer.model").read_bytes() == b"ranks"
    assert sorted(path.name for path in run.iterdir()) == ["checkpoints", "tokenizer", "weights"]


@pytest.mark.parametrize("processes", [1, 2])
def test_killed_in_the_middle_of_a_save_the_checkpoint_before_it_is_whole(
    start, tmp_path, processes
):
    kill_in_the_middle_of_a_save(start("save slowly", tmp_path, processes=processes), tmp_path)
    assert saved_steps(tmp_path) == [1]
    job["restore"](tmp_path, step=1)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["000001"]
    job["save"](tmp_path, step=2)
    job["restore"](tmp_path, step=2)
    shutil.rmtree(tmp_path)


def test_full_disk_is_an_error_of_the_folder_and_loses_nothing(start, tmp_path):
    (out,) = finish(start("save on a full disk", tmp_path))
    assert out == f"OSError {tmp_path / 'checkpoints'} File too large"
    assert saved_steps(tmp_path) == [1]
    job["restore"](tmp_path, step=1)


def test_one_of_two_processes_is_preempted_and_both_save_the_same_step(start, tmp_path):
    started = start("wait for preemption", tmp_path, processes=2, devices=1)
    for process in started:
        read_until(process, "trains\n")
    started[1].send_signal(signal.SIGTERM)
    first, second = finish(started)
    assert first == second and first.startswith("saves at ")


def test_a_process_alone_is_preempted(start, tmp_path):
    started = start("wait for preemption", tmp_path)
    read_until(started[0], "trains\n")
    started[0].send_signal(signal.SIGTERM)
    (out,) = finish(started)
    assert out.startswith("saves at ")
