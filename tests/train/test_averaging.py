"""Averages equal numpy's, of any formats, on any mesh; checkpoints of two models have none."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import llama_jax
from llama_jax.__main__ import main
from llama_jax.checkpoints.formats import open_source
from llama_jax.checkpoints.training_layout import step_folder
from llama_jax.config import TINY
from llama_jax.errors import InputError
from llama_jax.model import abstract_params
from train.averaging import AveragedSource, average_params
from train.checkpointing import Checkpointer
from train.config import CheckpointConfig
from train.progress import Progress


def make_params(seed, config=TINY):
    random = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: jax.device_put(random.normal(size=leaf.shape).astype(np.float32)),
        abstract_params(config),
    )


def expected_mean(*params):
    """Added in float64 in the order given, rounded once."""
    return jax.tree.map(
        lambda *leaves: np.mean([np.asarray(x, np.float64) for x in leaves], 0).astype(np.float32),
        *params,
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    run = tmp_path_factory.mktemp("run")
    checkpointer = Checkpointer(run, CheckpointConfig(every_steps=1))
    for step in (1, 2, 3):
        checkpointer.save({"params": make_params(step)}, Progress(step=step), TINY)
    checkpointer.close()
    return run


def test_the_mean_of_a_runs_checkpoints_lies_where_the_live_state_does(run):
    mesh = jax.make_mesh((8,), ("x",), axis_types=(AxisType.Auto,))

    def place(leaf):
        split = NamedSharding(mesh, PartitionSpec(*[None] * (leaf.ndim - 1), "x"))
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=split)

    live = jax.tree.map(place, abstract_params(TINY))
    mean = average_params(run, [1, 2, 3], live)
    jax.tree.map(np.testing.assert_array_equal, mean, expected_mean(*map(make_params, (1, 2, 3))))
    for leaf, asked in zip(jax.tree.leaves(mean), jax.tree.leaves(live), strict=True):
        assert leaf.sharding == asked.sharding and leaf.dtype == asked.dtype


def test_the_mean_of_one_checkpoint_is_itself(run):
    live = make_params(0)
    jax.tree.map(np.testing.assert_array_equal, average_params(run, [2], live), make_params(2))


def test_a_checkpoint_that_is_gone_is_named(run):
    with pytest.raises(InputError, match="000009: no such"):
        average_params(run, [1, 9], make_params(0))


def test_command_averages_any_formats(run, tmp_path, capsys):
    llama_jax.save_checkpoint(tmp_path / "hf", TINY, make_params(7), format="hf")
    a, b, c, mean = step_folder(run, 1), tmp_path / "hf", step_folder(run, 3), tmp_path / "mean"
    with pytest.raises(SystemExit) as stop:
        main(["average", str(a), str(b), str(c), str(mean)])
    assert stop.value.code == 0
    assert "mean of 3" in capsys.readouterr().out
    config, params = llama_jax.load_checkpoint(mean)
    assert config == TINY
    jax.tree.map(np.testing.assert_array_equal, params, expected_mean(*map(make_params, (1, 7, 3))))


def test_the_dtype_is_that_of_the_first_or_the_one_asked_for(run, tmp_path):
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), make_params(7))
    llama_jax.save_checkpoint(tmp_path / "half", TINY, half, format="orbax")
    sources = [open_source(tmp_path / "half"), open_source(step_folder(run, 1))]
    exact = expected_mean(half, make_params(1))["head"]
    rounded = AveragedSource(sources).read("head")
    assert rounded.dtype == jnp.bfloat16
    np.testing.assert_array_equal(rounded, exact.astype(jnp.bfloat16))
    np.testing.assert_array_equal(AveragedSource(sources, "float32").read("head"), exact)


def test_two_models_have_no_average(run, tmp_path):
    other = dataclasses.replace(TINY, rope_theta=10_000.0)
    llama_jax.save_checkpoint(tmp_path / "other", other, make_params(1), format="orbax")
    sources = [open_source(run), open_source(tmp_path / "other")]
    with pytest.raises(InputError, match="rope_theta is 10000.0 and not 500000.0"):
        AveragedSource(sources)


def test_command_refuses_in_one_line(run, tmp_path, capsys):
    one = str(step_folder(run, 1))
    for arguments, message in (
        ([one, str(tmp_path / "mean")], "two checkpoints or more"),
        ([one, str(tmp_path / "absent"), str(tmp_path / "mean")], "absent: no such"),
        ([one, one, one], "holds the source"),
    ):
        with pytest.raises(SystemExit) as stop:
            main(["average", *arguments])
        said = capsys.readouterr().err
        assert stop.value.code == 2 and message in said and said.count("\n") == 1
