"""A training checkpoint is a checkpoint like any other: read, converted, inspected, refused."""

import base64
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorstore

import llama_jax
from llama_jax.checkpoints.convert import convert
from llama_jax.checkpoints.formats import open_source
from llama_jax.checkpoints.inspect import describe
from llama_jax.checkpoints.source_tokenizer import source_tokenizer
from llama_jax.checkpoints.training_checkpoint import TrainingSource
from llama_jax.checkpoints.training_layout import step_folder
from llama_jax.config import TINY
from llama_jax.errors import InputError
from llama_jax.model import abstract_params
from train.checkpointing import Checkpointer
from train.config import CheckpointConfig
from train.progress import Progress
from train.run_tokenizer import copy_tokenizer


def make_params(seed, dtype=jnp.float32):
    random = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: jax.device_put(random.normal(size=leaf.shape).astype(dtype)),
        abstract_params(TINY),
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run's folder with checkpoints of steps 5 (bfloat16) and 10 (float32), a tokenizer, and a
    config.json of its own, which is not Hugging Face's."""
    run = tmp_path_factory.mktemp("runs") / "run"
    checkpointer = Checkpointer(run, CheckpointConfig(every_steps=5))
    for step, dtype in ((5, jnp.bfloat16), (10, jnp.float32)):
        params = make_params(step, dtype)
        state = {"params": params, "optimizer_state": {"mu": params}, "step": jnp.int32(step)}
        checkpointer.save(state, Progress(step=step), TINY)
    checkpointer.close()
    (run / "config.json").write_text('{"stages": []}')
    ranks = run.parent / "ranks.model"
    tokens = [bytes([byte]) for byte in range(256)] + [b"ab"]
    lines = [f"{base64.b64encode(token).decode()} {rank}\n" for rank, token in enumerate(tokens)]
    ranks.write_text("".join(lines))
    copy_tokenizer(run, ranks)
    return run


@pytest.fixture
def copy(run, tmp_path):
    """A copy to be damaged."""
    return shutil.copytree(run, tmp_path / "run")


@pytest.mark.parametrize("step", [5, 10])
def test_loads_to_the_bit(run, step):
    config, params = llama_jax.load_checkpoint(step_folder(run, step))
    assert config == TINY
    expected = make_params(step, jnp.bfloat16 if step == 5 else jnp.float32)
    for ours, saved in zip(jax.tree.leaves(params), jax.tree.leaves(expected), strict=True):
        assert ours.dtype == saved.dtype
        assert np.asarray(ours).tobytes() == np.asarray(saved).tobytes()


def test_a_run_means_its_latest_checkpoint(run):
    source = open_source(run)
    assert source.format == "training" and source.path == step_folder(run, 10)


def test_parts_of_a_layer_are_read_and_no_chunk_spans_two_layers(run):
    source = TrainingSource(step_folder(run, 10))
    query = make_params(10)["blocks"]["attention"]["query"]
    index = (slice(1, 3), slice(4, 8))
    np.testing.assert_array_equal(source.read("blocks.1.attention.query", index), query[1][index])
    for leaf, array in source._arrays.items():
        if ".blocks." in leaf:
            assert isinstance(array, tensorstore.TensorStore)
            assert array.chunk_layout.read_chunk.shape[0] == 1


def test_converts_there_and_back_and_takes_the_tokenizer_along(run, tmp_path):
    convert(run, tmp_path / "meta", to="meta", quiet=True)
    assert (tmp_path / "meta" / "tokenizer.model").is_file()
    convert(step_folder(run, 10), tmp_path / "hf", to="hf", quiet=True)
    _, params = llama_jax.load_checkpoint(tmp_path / "hf")
    jax.tree.map(np.testing.assert_array_equal, params, make_params(10))


def test_is_described_with_its_tokenizer(run, monkeypatch):
    monkeypatch.setattr("llama_jax.tokenizers.llama31.NUM_RANKS", 257)
    source = open_source(run)
    description = describe(source, run)
    assert description["format"] == "training"
    assert description["dtypes"] == {"float32": 21}
    assert description["files"] == ["tokenizer.model"]
    assert source_tokenizer(source).encode("aab") == [97, 256]


def test_without_a_tokenizer_the_checkpoint_is_named(copy):
    shutil.rmtree(copy / "tokenizer")
    with pytest.raises(InputError, match="000010: no tokenizer there"):
        source_tokenizer(open_source(copy))


def test_moved_out_of_its_run_it_has_weights_only(copy, tmp_path):
    source = open_source(shutil.move(step_folder(copy, 10), tmp_path / "moved"))
    assert source.assets.files == {} and len(source.tensors) == 21


def change(path, **fields):
    file = path / "description" / "training.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def cut_values(path):
    """The longest file of values loses its second half."""
    file = max(path.rglob("ocdbt.process_0/d/*"), key=lambda file: file.stat().st_size)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def lose_values(path):
    max(path.rglob("ocdbt.process_0/d/*"), key=lambda file: file.stat().st_size).unlink()


def forget_a_leaf(path):
    """As a run of a model with one leaf more would have left it."""
    leaves = json.loads((path / "description" / "training.json").read_text())["leaves"]
    change(path, leaves=leaves | {"params.extra": leaves["params.head"]})


DAMAGES = {
    "cut values": (cut_values, "were written, so this checkpoint is damaged"),
    "lost values": (lose_values, "missing, so this checkpoint is damaged"),
    "lost tree": (lambda path: (path / "state" / "manifest.ocdbt").unlink(), "state: damaged ("),
    "broken tree": (
        lambda path: (path / "state" / "manifest.ocdbt").write_bytes(b"x" * 99), "state: damaged (",
    ),
    "lost state": (lambda path: shutil.rmtree(path / "state"), "state: damaged ("),
    "lost description": (
        lambda path: (path / "description" / "training.json").unlink(), "no such file",
    ),
    "another version": (lambda path: change(path, format_version=9), "format_version 9"),
    "no config": (lambda path: change(path, config=[]), "config is missing"),
    "bad config": (lambda path: change(path, config={"vocab_size": 3}), "training.json: model"),
    "another config": (
        lambda path: change(path, config=TINY.to_dict() | {"num_layers": 3}),
        "params.blocks.attention_norm.scale is float32 [2, 64], but its config makes it [3, 64]",
    ),
    "a tied head": (
        lambda path: change(path, config=TINY.to_dict() | {"tied_embeddings": True}),
        "params.head is not a parameter of its config",
    ),
    "a leaf too many": (forget_a_leaf, "params.extra is not a parameter"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_one_line(copy, damage):
    spoil, message = DAMAGES[damage]
    spoil(step_folder(copy, 10))
    with pytest.raises(InputError) as error:
        TrainingSource(step_folder(copy, 10))
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_changed_tree_node_is_found(copy):
    """OCDBT keeps checksums of its nodes."""
    (node,) = (step_folder(copy, 10) / "state" / "d").iterdir()
    content = bytearray(node.read_bytes())
    content[len(content) // 2] ^= 1
    node.write_bytes(content)
    with pytest.raises(InputError, match="damaged"):
        TrainingSource(step_folder(copy, 10))


def test_what_a_killed_save_left_is_refused(copy):
    left = step_folder(copy, 10).rename(copy / "checkpoints" / "000010.orbax-checkpoint-tmp")
    with pytest.raises(InputError, match="not saved to its end"):
        open_source(left)
    assert open_source(copy).path == step_folder(copy, 5)
