"""What is wrong with a run, its data or its folder: one line, exit code 2, and nothing lost."""

import contextlib
import dataclasses
import json
import resource
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from llama_jax.__main__ import main
from llama_jax.checkpoints.training_layout import saved_steps
from sharding.mesh import MeshShape, make_mesh
from train.checkpointing import Checkpointer
from train.optimizer import make_optimizer
from train.progress import Progress
from train.state import abstract_state

from . import small_runs

pytestmark = pytest.mark.usefixtures("quick_compilation")

RUN = f"{Path(small_runs.__file__).resolve()}:one_stage"
PROGRESS = ("step ", "first step ", "no MFU figures", "matmul ", "attention: ")
TOKENS = 8 * small_runs.ROW_LENGTH  # of a step


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    small_runs.write_data(folder)
    return folder


@pytest.fixture(scope="module")
def begun(data):
    """`data` with the folder `run` of two steps."""
    with contextlib.chdir(data), pytest.raises(SystemExit) as stop:
        main(["train", RUN, "--quiet", "--stages.0.num-tokens", str(2 * TOKENS)])
    assert stop.value.code == 0 and saved_steps(data / "run") == [2]
    return data


@pytest.fixture
def folder(data, tmp_path, monkeypatch):
    """A copy of the data that a test may damage, as the working directory."""
    copy = tmp_path / "copy"
    shutil.copytree(data, copy, ignore=shutil.ignore_patterns("run"))
    monkeypatch.chdir(copy)
    return copy


def refused(capsys, *options):
    """The line that the run ends with."""
    with pytest.raises(SystemExit) as stop:
        main(["train", RUN, "--quiet", *options])
    lines = capsys.readouterr().err.splitlines()
    lines = [line for line in lines if not line.startswith(PROGRESS)]
    assert stop.value.code == 2 and len(lines) == 1 and lines[0].startswith("error: "), lines
    return lines[0].removeprefix("error: ")


def other_tokenizer(folder):
    """As good a tokenizer, but two bytes have each other's number."""
    path = folder / "tokenizer" / "tokenizer.json"
    content = json.loads(path.read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    path.write_text(json.dumps(content))


def other_rows(folder):
    for name in ("first", "second", "held_out"):
        shutil.rmtree(folder / name)
    small_runs.write_data(folder, row_length=16)


def no_second_set(folder):
    shutil.rmtree(folder / "second")


def nothing(folder):
    pass


MISTAKES = {
    "tokenizer": (
        other_tokenizer,
        (),
        "stages[0].mixture[0].path: first was prepared with another",
    ),
    "rows": (other_rows, (), "stages[0].mixture[0].path: first has rows of 16 tokens, and stages"),
    "no data": (no_second_set, (), "stages[0].mixture[1].path: second"),
    "devices": (nothing, ("--mesh.fsdp", "3"), "mesh data 1 x stage 1 x fsdp 3"),
    "heads": (nothing, ("--mesh.tensor", "8"), "mesh.tensor: 8 does not divide model.num_heads 4"),
    "weights": (nothing, ("--initial-weights", "none.gguf"), "initial_weights: none.gguf: no such"),
    "override": (nothing, ("--stages.0.row-lenght", "32"), "--stages.0.row-length"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_said_before_anything_is_written(capsys, folder, mistake):
    damage, options, message = MISTAKES[mistake]
    damage(folder)
    assert message in refused(capsys, *options)
    assert not (folder / "run").exists()


def test_a_damaged_row_is_said_when_it_is_read(capsys, folder):
    (shard,) = (folder / "first").glob("*.arrayrecord")
    shard.write_bytes(bytes(byte ^ 255 for byte in shard.read_bytes()))
    line = refused(capsys)
    assert line.startswith(f"first/{shard.name}: row ") and "is damaged" in line
    assert saved_steps(folder / "run") == []


def test_a_checkpoint_of_another_model_is_not_overwritten(capsys, folder):
    run = small_runs.one_stage()
    other = dataclasses.replace(run.model, feed_forward_dim=32)
    mesh = make_mesh(MeshShape())
    abstract = abstract_state(other, make_optimizer(run.optimizer), mesh, dtype=jnp.float32)
    state = jax.tree.map(
        lambda leaf: jax.device_put(jnp.zeros(leaf.shape, leaf.dtype), leaf.sharding), abstract
    )
    checkpointer = Checkpointer(folder / "run", run.checkpoint)
    checkpointer.save(state, Progress(step=4, stage_step=4, rows=32, tokens=1024), other)
    checkpointer.close()
    line = refused(capsys)
    assert "run" in line and "config.json" in line, line  # no run wrote this
    assert saved_steps(folder / "run") == [4]


def test_too_many_skipped_steps_end_the_run_and_what_was_saved_stays(capsys, begun, monkeypatch):
    """A learning rate with which no update is finite."""
    monkeypatch.chdir(begun)
    options = ("--output", "thrown", "--stages.0.learning-rate.peak", "1e30")
    line = refused(capsys, *options, "--optimizer.max-skipped", "3")
    assert line.startswith("first step 3: the last 3 steps were skipped (loss ")
    assert "optimizer.max_skipped" in line
    assert saved_steps(begun / "thrown") == [2]
    assert not (begun / "thrown" / "weights").exists()


def test_a_full_disk_ends_the_run_and_what_was_saved_stays(begun):
    """Files may have 100,000 bytes: to the writer, that is a disk that runs full. What it had
    before, the next process goes on from."""
    process = small_runs.start(begun, "one_stage", devices=8)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (100_000, 100_000))
    errors = small_runs.finish(process, code=2)
    # Not by lines: tensorstore's threads write about the files they were at, in between.
    said = (
        f"error: {begun}/run/checkpoints: File too large; free space there and run the same "
        "command again: it goes on from the last checkpoint\n"
    )
    assert errors.count(said) == errors.count("error: ") == 1
    assert saved_steps(begun / "run") == [2]
