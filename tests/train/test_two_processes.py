"""Two processes train as one: the same losses, and the same bits after one of them was killed."""

import json
import socket
import time

import jax
import numpy as np
import pytest

import llama_jax

from . import small_runs

TWO_COPIES = ("--mesh.data", "2", "--mesh.fsdp", "4")
# float32 sums over devices in another order. Losses, relative: measured 2e-7. Weights after twelve
# steps, of each leaf's largest: 5e-5, where a gradient is near zero and Adam follows its rounding.
LOSS_TOLERANCE, WEIGHT_TOLERANCE = 2e-6, 2e-4


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    small_runs.write_data(folder)
    return folder


def start_two(folder, output, *options):
    """The two processes of a job, four devices each."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    job = ("--coordinator", f"localhost:{port}", "--num-processes", "2", "--output", output)
    return [
        small_runs.start(folder, "one_stage", *options, *job, "--process-id", str(i), devices=4)
        for i in range(2)
    ]


def finish_two(processes):
    try:
        for process in processes:
            small_runs.finish(process)
    finally:
        for process in processes:
            process.kill()
            process.wait()


def train_lines(run):
    path = run / "metrics.jsonl"
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    records = [json.loads(line) for line in lines if line.endswith(b"\n")]
    return [record for record in records if record["kind"] == "train"]


def losses(run):
    lines = train_lines(run)
    assert [line["step"] for line in lines] == list(range(1, 13))
    return np.array([line["loss"] for line in lines])


def weights(run):
    return llama_jax.load_checkpoint(run / "weights")[1]


@pytest.fixture(scope="module")
def alone(folder):
    """One process with eight devices."""
    process = small_runs.start(folder, "one_stage", "--output", "alone", devices=8)
    small_runs.finish(process)
    return folder / "alone"


@pytest.fixture(scope="module")
def together(folder):
    """Two processes, which share every parameter and the rows."""
    finish_two(start_two(folder, "together", *TWO_COPIES))
    return folder / "together"


def test_two_processes_are_as_good_as_one(alone, together):
    np.testing.assert_allclose(losses(together), losses(alone), rtol=LOSS_TOLERANCE)
    trained, expected = weights(together), weights(alone)
    assert jax.tree.structure(trained) == jax.tree.structure(expected)
    for leaf, other in zip(jax.tree.leaves(trained), jax.tree.leaves(expected), strict=True):
        assert np.abs(leaf - other).max() <= WEIGHT_TOLERANCE * np.abs(other).max()


def test_one_of_two_is_killed_the_other_ends_and_both_go_on_with_the_same_bits(folder, together):
    run = folder / "killed"
    processes = start_two(folder, "killed", *TWO_COPIES, "--peer-timeout", "10")
    deadline = time.monotonic() + 300
    try:
        while len(train_lines(run)) < 5:
            assert time.monotonic() < deadline
            assert [process.poll() for process in processes] == [None, None]
            time.sleep(0.001)
        processes[1].kill()
        # The survivor stands in a sum with the dead, or waits for it to agree on a step.
        _, errors = processes[0].communicate(timeout=60)
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert processes[0].returncode not in (0, None), errors
    assert not (run / "weights").exists()

    finish_two(start_two(folder, "killed", *TWO_COPIES))
    np.testing.assert_array_equal(losses(run), losses(together))
    for leaf, other in zip(
        jax.tree.leaves(weights(run)), jax.tree.leaves(weights(together)), strict=True
    ):
        assert np.asarray(leaf).tobytes() == np.asarray(other).tobytes()


def test_another_mesh_and_number_of_processes_goes_on_with_the_same_rows(folder, alone):
    """Half of the steps on two processes, the other half on one, which splits heads and words."""
    half = ("--stages.0.num-tokens", str(6 * 8 * small_runs.ROW_LENGTH))
    finish_two(start_two(folder, "moved", "--mesh.fsdp", "8", *half))
    assert len(train_lines(folder / "moved")) == 6
    mesh = ("--mesh.fsdp", "2", "--mesh.tensor", "4")
    process = small_runs.start(folder, "one_stage", "--output", "moved", *mesh, devices=8)
    small_runs.finish(process)
    np.testing.assert_allclose(losses(folder / "moved"), losses(alone), rtol=LOSS_TOLERANCE)
    for name in ("tokens", "total_tokens", "rows/first", "rows/second"):
        moved = [line[name] for line in train_lines(folder / "moved")]
        assert moved == [line[name] for line in train_lines(alone)], name
