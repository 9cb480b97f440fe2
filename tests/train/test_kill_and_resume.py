"""A run that is killed, again and again, ends with the bits of one that never was."""

import dataclasses
import functools
import json
import random
import signal
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import llama_jax
from sharding.mesh import MeshShape, make_mesh
from train.checkpointing import Checkpointer
from train.optimizer import make_optimizer
from train.state import abstract_state

from . import small_runs

DEVICES = 2
# What a line of metrics says of the state and the data; the rest is of the clock.
MEASURED = (
    "stage", "loss", "gradient_norm", "learning_rate", "parameter_norm", "update_norm", "tokens",
    "skipped", "skipped_in_a_row", "z_loss", "total_tokens", "rows/first", "rows/second",
    "held_out", "held_out_averaged",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    small_runs.write_data(folder)
    return folder


@pytest.fixture(scope="module")
def uninterrupted(folder):
    small_runs.finish(small_runs.start(folder, "two_stages", "--output", "whole", devices=DEVICES))
    return folder / "whole"


def lines_of(run):
    """The finished lines of a run's metrics; none before it has begun."""
    path = run / "metrics.jsonl"
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith(b"\n")]


def last_step(run):
    return max((line["step"] for line in lines_of(run) if line["kind"] == "train"), default=0)


def saving(run):
    """Whether a checkpoint is being written."""
    return any((run / "checkpoints").glob("*tmp*"))


def final_state(run):
    """Every array of the last checkpoint, and the progress but for the clock."""
    config = small_runs.two_stages()
    mesh = make_mesh(MeshShape(fsdp=1), jax.devices()[:1])
    abstract = abstract_state(
        config.model, make_optimizer(config.optimizer), mesh, dtype=jnp.float32
    )
    checkpointer = Checkpointer(run, config.checkpoint)
    state, progress = checkpointer.restore(abstract)
    checkpointer.close()
    return state, dataclasses.replace(progress, elapsed_seconds=0.0)


def assert_same_bits(tree, other):
    assert jax.tree.structure(tree) == jax.tree.structure(other)
    for (path, left), right in zip(
        jax.tree_util.tree_leaves_with_path(tree), jax.tree.leaves(other), strict=True
    ):
        assert left.dtype == right.dtype
        same = np.asarray(left).tobytes() == np.asarray(right).tobytes()
        assert same, jax.tree_util.keystr(path)


def numbers_of(run):
    """What was measured at each step, but for the clock. What follows the last save of a stage, the
    loss of the average, is done again by a run that was killed there: the same, to the bit."""
    measured = {}
    for line in lines_of(run):
        if line["kind"] == "event":
            continue
        values = {name: line[name] for name in MEASURED if name in line}
        averaged = "held_out_averaged" in line
        key = line["step"], line["kind"], averaged
        assert key not in measured or (averaged and measured[key] == values), f"{key}: twice"
        measured[key] = values
    return measured


def assert_same_run(run, uninterrupted, told_at=()):
    """A run that is told to end has seconds: what is to be evaluated at that step is left out."""
    state, progress = final_state(run)
    expected_state, expected_progress = final_state(uninterrupted)
    assert progress == expected_progress
    assert_same_bits(state, expected_state)
    config, params = llama_jax.load_checkpoint(run / "weights")
    expected_config, expected = llama_jax.load_checkpoint(uninterrupted / "weights")
    assert config == expected_config
    assert_same_bits(params, expected)
    # The average is not the last state, so it was made of the right checkpoints.
    assert not np.array_equal(params["embedding"], state.params["embedding"])
    expected_numbers = numbers_of(uninterrupted)
    for step in told_at:
        expected_numbers.pop((step, "evaluation", False), None)
    assert numbers_of(run) == expected_numbers
    steps = [line["step"] for line in lines_of(run) if line["kind"] == "train"]
    assert steps == list(range(1, 19))
    assert sorted(path.name for path in run.iterdir()) == sorted(
        path.name for path in uninterrupted.iterdir()
    )
    assert not saving(run)


def stop(folder, run, moment, number=signal.SIGKILL):
    """Starts the run, sends it a signal as soon as `moment()` is true, and waits for its end."""
    process = small_runs.start(folder, "two_stages", "--output", run.name, devices=DEVICES)
    deadline = time.monotonic() + 300
    try:
        while not moment():
            assert process.poll() is None, f"ended too soon: {process.communicate()[1]}"
            assert time.monotonic() < deadline
            time.sleep(0.001)
        process.send_signal(number)
        _, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    return process.returncode, errors


def test_a_run_that_is_killed_at_random_ends_with_the_same_bits(folder, uninterrupted):
    run, chance = folder / "killed", random.Random(0)

    def at(step):
        """A moment soon after `step`, while something or other is going on."""
        if last_step(run) < step:
            return False
        time.sleep(chance.uniform(0.0, 0.05))
        return True

    def in_a_save(after):
        """A save has begun, of a step after `after`."""
        if not saving(run) or last_step(run) <= after:
            return False
        time.sleep(chance.uniform(0.0, 0.01))
        return True

    moments = [
        functools.partial(at, chance.randint(1, 5)),
        functools.partial(in_a_save, 4),  # with twice the rows from step 7 on
        functools.partial(at, 13),  # in the second stage
        functools.partial(in_a_save, 15),  # one of the averaged is saved, the other is not
        (run / "weights.sharded").exists,  # the weights are being written
    ]
    for moment in moments:
        code, errors = stop(folder, run, moment)
        assert code == -signal.SIGKILL, errors
        assert not (run / "weights").exists()
    small_runs.finish(small_runs.start(folder, "two_stages", "--output", run.name, devices=DEVICES))
    assert_same_run(run, uninterrupted)


def test_a_run_that_is_told_to_end_saves_and_goes_on_with_the_same_bits(folder, uninterrupted):
    run, told_at = folder / "told", []
    for step in (3, 13):
        code, errors = stop(folder, run, lambda step=step: last_step(run) >= step, signal.SIGTERM)
        assert code == 143, errors
        told = [line for line in lines_of(run) if "preempted" in line]
        saved = max(int(path.name) for path in (run / "checkpoints").iterdir())
        assert told[-1]["step"] == saved >= step
        told_at.append(saved)
        assert "Traceback" not in errors
    small_runs.finish(small_runs.start(folder, "two_stages", "--output", run.name, devices=DEVICES))
    assert_same_run(run, uninterrupted, told_at)
