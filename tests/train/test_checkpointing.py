"""Saved and restored to the bit on any mesh; what is kept; what is refused, in one line each."""

import dataclasses
import json
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from llama_jax.checkpoints.training_layout import saved_steps, step_folder
from llama_jax.config import TINY
from llama_jax.errors import InputError
from llama_jax.model import abstract_params
from train.checkpointing import Checkpointer
from train.config import CheckpointConfig
from train.progress import Progress

SMALL = dataclasses.replace(TINY, vocab_size=64, model_dim=32, feed_forward_dim=64)
KEEP_ALL = CheckpointConfig(every_steps=1, keep=100)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    """Any pytree will do: a dataclass with dicts, optax's tuples and a scalar in it."""

    step: jax.Array
    params: dict
    optimizer_state: object


def make_state(config=SMALL, seed=0, optimizer=None):
    """Random values; filled in by numpy, which compiles nothing."""
    params = abstract_params(config)
    optimizer = optimizer or optax.adamw(1e-3, mu_dtype=jnp.bfloat16)
    step = jax.ShapeDtypeStruct((), jnp.int32)
    state = State(step, params, jax.eval_shape(optimizer.init, params))
    random = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: jax.device_put(random.normal(size=leaf.shape, scale=9).astype(leaf.dtype)),
        state,
    )


def on_mesh(tree, shape):
    """The same with the two last dimensions of each leaf split over a mesh of this shape."""
    mesh = jax.make_mesh(shape, ("a", "b"), axis_types=(AxisType.Auto,) * 2)

    def put(leaf):
        axes = [None] * leaf.ndim
        for d, axis in zip(range(leaf.ndim)[-2:], "ab", strict=False):
            axes[d] = axis if leaf.shape[d] % mesh.shape[axis] == 0 else None
        return jax.device_put(np.asarray(leaf), NamedSharding(mesh, PartitionSpec(*axes)))

    return jax.tree.map(put, tree)


def abstract(state):
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state
    )


def assert_same_bits(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for left, right in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert left.dtype == right.dtype
        assert np.asarray(left).tobytes() == np.asarray(right).tobytes()


def save_all(run, states, config=KEEP_ALL, losses=None):
    checkpointer = Checkpointer(run, config)
    for step, state in states.items():
        metrics = None if losses is None else {"held_out": losses[step], "other": -float(step)}
        assert checkpointer.save(state, Progress(step=step), SMALL, metrics)
    checkpointer.close()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A run with checkpoints of steps 1 and 2."""
    run = tmp_path_factory.mktemp("run")
    save_all(run, {1: make_state(seed=1), 2: make_state(seed=2)})
    return run


@pytest.fixture
def copy(saved, tmp_path):
    """A copy to be damaged."""
    return shutil.copytree(saved, tmp_path / "copy")


def test_same_bits_come_back_on_another_mesh_and_each_device_has_its_part(tmp_path):
    progress = Progress(1, 7, 3, 4, 96, 12_345, 1, {"held_out": 2.5}, 60.25)
    state = on_mesh(make_state(), (2, 4))
    checkpointer = Checkpointer(tmp_path, KEEP_ALL)
    checkpointer.save(state, progress, SMALL)
    wanted = abstract(on_mesh(make_state(seed=5), (8, 1)))
    restored, read = checkpointer.restore(wanted, model_config=SMALL)
    checkpointer.close()
    assert read == progress
    assert_same_bits(restored, state)
    for leaf, asked in zip(jax.tree.leaves(restored), jax.tree.leaves(wanted), strict=True):
        assert leaf.sharding == asked.sharding
    gate = restored.params["blocks"]["feed_forward"]["gate"]
    assert gate.addressable_shards[0].data.shape == (2, 64 // 8, 32)


@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16, np.int32])
def test_every_bit_pattern_comes_back(tmp_path, dtype):
    """Infinities, denormals and every kind of not-a-number among them."""
    bits = np.random.default_rng(0).integers(0, 256, 2**14, dtype=np.uint8)
    state = {"params": {"x": jnp.asarray(bits.view(dtype))}}
    checkpointer = Checkpointer(tmp_path, KEEP_ALL)
    checkpointer.save(state, Progress(step=1), SMALL)
    restored, _ = checkpointer.restore(state)
    checkpointer.close()
    assert np.asarray(restored["params"]["x"]).tobytes() == bits.tobytes()


def test_a_state_may_be_donated_as_soon_as_save_returns(tmp_path):
    state = {"params": {"x": jnp.arange(2_000_000.0)}}
    expected = np.arange(2_000_000, dtype=np.float32).tobytes()
    advance = jax.jit(lambda state: jax.tree.map(lambda x: x * 0 - 1, state), donate_argnums=0)
    checkpointer = Checkpointer(tmp_path, KEEP_ALL)
    checkpointer.save(state, Progress(step=1), SMALL)
    state = advance(state)
    restored, _ = checkpointer.restore(state)
    checkpointer.close()
    assert np.asarray(restored["params"]["x"]).tobytes() == expected


def test_a_step_is_saved_once(tmp_path):
    checkpointer = Checkpointer(tmp_path, KEEP_ALL)
    assert checkpointer.save(make_state(seed=1), Progress(step=1), SMALL)
    assert not checkpointer.save(make_state(seed=2), Progress(step=1), SMALL)
    checkpointer.close()
    checkpointer = Checkpointer(tmp_path, KEEP_ALL)
    assert not checkpointer.save(make_state(seed=3), Progress(step=1), SMALL)
    restored, _ = checkpointer.restore(make_state())
    checkpointer.close()
    assert_same_bits(restored, make_state(seed=1))


def test_latest_best_and_pinned_stay_also_after_a_restart(tmp_path):
    losses = {1: 4.0, 2: 2.0, 3: 3.0, 4: float("nan"), 5: 2.0, 6: 2.5, 7: 2.6}
    config = CheckpointConfig(every_steps=1, keep=2, best_set="held_out")
    state = {"params": {"x": jnp.zeros(8)}}
    for steps, kept in (((1, 2, 3), [2, 3]), ((4, 5), [2, 4, 5]), ((6, 7), [2, 6, 7])):
        save_all(tmp_path, dict.fromkeys(steps, state), config, losses)
        assert saved_steps(tmp_path) == kept
    checkpointer = Checkpointer(tmp_path, config)
    assert (checkpointer.best_step(), checkpointer.latest_step()) == (2, 7)
    checkpointer.pin([6, 9])
    for step in range(8, 12):
        checkpointer.save(state, Progress(step=step), SMALL)
    checkpointer.wait()
    assert saved_steps(tmp_path) == checkpointer.steps() == [2, 6, 9, 10, 11]
    checkpointer.pin([])
    checkpointer.save(state, Progress(step=1_000_000), SMALL)
    checkpointer.close()
    assert saved_steps(tmp_path) == [2, 11, 1_000_000]


def test_without_a_best_set_only_the_latest_stay(tmp_path):
    state = {"params": {"x": jnp.zeros(8)}}
    config = CheckpointConfig(every_steps=1, keep=1)
    save_all(tmp_path, dict.fromkeys((1, 2, 3), state), config, {1: 1.0, 2: 2.0, 3: 3.0})
    assert saved_steps(tmp_path) == [3]


def test_keeping_none_is_refused(tmp_path):
    with pytest.raises(InputError, match="keep 0"):
        Checkpointer(tmp_path, CheckpointConfig(every_steps=1, keep=0))


def test_what_killed_saves_left_is_removed(copy):
    leftover = copy / "checkpoints" / "000003.orbax-checkpoint-tmp"
    shutil.copytree(step_folder(copy, 2), leftover)
    checkpointer = Checkpointer(copy, KEEP_ALL)
    assert checkpointer.latest_step() == 2
    assert checkpointer.save(make_state(seed=3), Progress(step=3), SMALL)
    checkpointer.close()
    assert not leftover.exists() and saved_steps(copy) == [1, 2, 3]


def refusal(run, state, **options):
    checkpointer = Checkpointer(run, KEEP_ALL)
    try:
        with pytest.raises(InputError) as error:
            checkpointer.restore(state, **options)
    finally:
        checkpointer.close()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_no_checkpoint_is_said(tmp_path, saved):
    assert refusal(tmp_path, make_state()).endswith("no checkpoint; there are: none")
    assert "of step 3; there are: 1, 2" in refusal(saved, make_state(), step=3)


WIDER = dataclasses.replace(SMALL, feed_forward_dim=128)
OTHERS = {
    "another shape": (
        lambda: make_state(WIDER),
        "params.blocks.feed_forward.down is float32 [2, 32, 64] there and float32 [2, 32, 128]",
    ),
    "another dtype": (
        lambda: dataclasses.replace(make_state(), step=jnp.float32(1)),
        "step is int32 [] there and float32 [] in the run",
    ),
    "no head": (
        lambda: make_state(dataclasses.replace(SMALL, tied_embeddings=True)),
        "params.head is float32 [64, 32] there and absent in the run; give back the model",
    ),
    "more of an optimizer": (
        lambda: make_state(optimizer=optax.adamw(1e-3, mu_dtype=jnp.bfloat16, nesterov=True)),
        None,  # the same leaves, so it restores
    ),
    "another optimizer": (
        lambda: make_state(optimizer=optax.sgd(1e-3, momentum=0.9)),
        "give back the optimizer settings",
    ),
    "other moments": (
        lambda: make_state(optimizer=optax.adamw(1e-3)),
        "mu.blocks.attention.key is bfloat16 [2, 2, 16, 32] there and float32 [2, 2, 16, 32]",
    ),
}


@pytest.mark.parametrize("other", OTHERS)
def test_checkpoint_of_another_run_says_what_differs(saved, other):
    make, message = OTHERS[other]
    if message is None:
        checkpointer = Checkpointer(saved, KEEP_ALL)
        restored, _ = checkpointer.restore(make())
        checkpointer.close()
        assert_same_bits(restored.params, make_state(seed=2).params)
    else:
        assert message in refusal(saved, make())


def test_another_config_with_the_same_shapes_is_refused(saved):
    config = dataclasses.replace(SMALL, norm_eps=1e-6)
    message = refusal(saved, make_state(), model_config=config)
    assert "of another model: norm_eps is 1e-05 there and 1e-06 in the run" in message


def cut(path):
    """Every file of values loses its second half."""
    for file in (path / "state").rglob("d/*"):
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def change(path, **fields):
    file = path / "description" / "training.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


DAMAGES = {
    "cut files": (cut, "damaged ("),
    "lost arrays": (lambda path: shutil.rmtree(path / "state"), "damaged ("),
    "lost root": (lambda path: (path / "state" / "manifest.ocdbt").unlink(), "damaged ("),
    "lost values": (
        lambda path: shutil.rmtree(path / "state" / "ocdbt.process_0" / "d"), "damaged (",
    ),
    "lost description": (lambda path: shutil.rmtree(path / "description"), "no such file"),
    "no JSON": (
        lambda path: (path / "description" / "training.json").write_text("{"), "not valid JSON",
    ),
    "another version": (lambda path: change(path, format_version=2), "format_version 2"),
    "no config": (lambda path: change(path, config=None), "config is missing"),
    "no progress": (lambda path: change(path, progress=3), "progress: must have"),
    "broken progress": (
        lambda path: change(path, progress=Progress(step=2).to_dict() | {"rows": -1}),
        "rows cannot be -1",
    ),
    "no leaves": (lambda path: change(path, leaves=None), "lists no leaves"),
    "odd leaf": (lambda path: change(path, leaves={"step": 3}), "step is 3 there"),
    "renamed": (lambda path: change(path, progress=Progress(step=1).to_dict()), "at step 1"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_one_line_that_names_the_folder_and_the_one_before_stays(copy, damage):
    spoil, message = DAMAGES[damage]
    spoil(step_folder(copy, 2))
    said = refusal(copy, make_state())
    assert message in said and str(step_folder(copy, 2)) in said
    if message == "damaged (":
        assert said.endswith("remove this folder to go on from step 1")
    shutil.rmtree(step_folder(copy, 2))
    checkpointer = Checkpointer(copy, KEEP_ALL)
    restored, progress = checkpointer.restore(make_state())
    checkpointer.close()
    assert progress.step == 1
    assert_same_bits(restored, make_state(seed=1))


def test_progress_comes_back_from_json():
    progress = Progress(1, 7, 3, 4, 96, 12_345, 1, {"held_out": 2.5}, 60.25)
    assert Progress.from_dict(json.loads(json.dumps(progress.to_dict()))) == progress
    for field in dataclasses.fields(Progress):
        fields = progress.to_dict()
        del fields[field.name]
        with pytest.raises(InputError, match="exactly"):
            Progress.from_dict(fields)
        with pytest.raises(InputError, match=re.escape(f"{field.name} cannot be 'x'")):
            Progress.from_dict(progress.to_dict() | {field.name: "x"})
