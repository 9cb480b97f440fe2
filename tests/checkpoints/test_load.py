"""Loading onto devices and saving from them: whole, sharded, cast; and how much is read."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from llama_jax.checkpoints.formats import open_source
from llama_jax.checkpoints.load import load_checkpoint
from llama_jax.checkpoints.orbax import OrbaxSource
from llama_jax.checkpoints.save import save_checkpoint
from llama_jax.config import TINY
from llama_jax.errors import InputError
from llama_jax.model import abstract_params, unstack_blocks

TIED = dataclasses.replace(TINY, tied_embeddings=True)
FORMATS = ("orbax", "hf", "meta")


def random_params(config, dtype=jnp.float32):
    random = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: jnp.asarray(random.normal(size=leaf.shape), dtype), abstract_params(config)
    )


@pytest.fixture(scope="module")
def params():
    return random_params(TINY)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, params):
    path = tmp_path_factory.mktemp("load") / "checkpoint"
    save_checkpoint(path, TINY, params, format="orbax")
    return path


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for ours, theirs in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)


def shardings_like(params):
    """Layers over two devices and the last dimension over four."""
    mesh = jax.make_mesh((2, 4), ("stage", "tensor"))

    def one(leaf):
        first = "stage" if leaf.shape[0] == TINY.num_layers else None
        axes = [first, *[None] * (leaf.ndim - 2), "tensor"] if leaf.ndim > 1 else ["tensor"]
        return NamedSharding(mesh, PartitionSpec(*axes))

    return jax.tree.map(one, params)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("config", [TINY, TIED], ids=["untied", "tied"])
def test_saved_and_loaded_are_the_same(tmp_path, format, config):
    params = random_params(config, jnp.bfloat16)
    save_checkpoint(tmp_path / "checkpoint", config, params, format=format)
    loaded_config, loaded = load_checkpoint(tmp_path / "checkpoint")
    assert loaded_config == config
    assert_same(loaded, params)


def test_sharded_equals_unsharded(checkpoint, params):
    shardings = shardings_like(params)
    _, loaded = load_checkpoint(checkpoint, shardings=shardings)
    assert_same(loaded, params)
    assert jax.tree.map(lambda leaf: leaf.sharding, loaded) == shardings


def test_each_part_is_read_once(checkpoint, params, monkeypatch):
    reads = []
    read = OrbaxSource.read

    def counted(self, name, index=()):
        part = read(self, name, index)
        reads.append(part.nbytes)
        return part

    monkeypatch.setattr(OrbaxSource, "read", counted)
    load_checkpoint(checkpoint, shardings=shardings_like(params))
    # Every weight is cut over all the devices that differ, so what all of them read together is the
    # checkpoint once; only what has no layers is wanted by both stages.
    total = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    assert total <= sum(reads) <= 2 * total
    assert max(reads) <= max(leaf.nbytes for leaf in jax.tree.leaves(params)) // 4


def test_sharded_saves_the_same_files(tmp_path, checkpoint, params):
    _, sharded = load_checkpoint(checkpoint, shardings=shardings_like(params))
    save_checkpoint(tmp_path / "again", TINY, sharded, format="orbax")
    ours, theirs = open_source(tmp_path / "again"), open_source(checkpoint)
    for name in ours.tensors:
        assert ours.read(name).tobytes() == theirs.read(name).tobytes()


def test_casts(checkpoint, params):
    _, loaded = load_checkpoint(checkpoint, dtype="bfloat16")
    assert_same(loaded, jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params))


def test_mixed_layers_take_the_wider_dtype(tmp_path, params):
    mixed = dict(params, head=params["head"].astype(jnp.bfloat16))
    save_checkpoint(tmp_path / "mixed", TINY, mixed, format="orbax")
    _, loaded = load_checkpoint(tmp_path / "mixed")
    assert_same(loaded, mixed)


def test_wrong_shardings_are_named(checkpoint, params):
    shardings = shardings_like(params)
    del shardings["head"]
    with pytest.raises(InputError, match="leaves of its params: head"):
        load_checkpoint(checkpoint, shardings=shardings)


def test_wrong_params_are_named(tmp_path, params):
    without = {name: leaf for name, leaf in params.items() if name != "head"}
    with pytest.raises(InputError, match="params: head is missing"):
        save_checkpoint(tmp_path / "x", TINY, without, format="orbax")
    with pytest.raises(InputError, match="params: head is not part of the model"):
        save_checkpoint(tmp_path / "x", TIED, params, format="orbax")
    bias = dict(params, blocks=dict(params["blocks"], bias=np.zeros(2)))
    with pytest.raises(InputError, match="params: blocks.bias is not part of the model"):
        save_checkpoint(tmp_path / "x", TINY, bias, format="orbax")
    unstacked = unstack_blocks(params)
    fewer = dict(unstacked, blocks=unstacked["blocks"][:1])
    with pytest.raises(InputError, match="params: blocks.1.attention.key is missing"):
        save_checkpoint(tmp_path / "x", TINY, fewer, format="orbax")
    with pytest.raises(InputError, match="of shape"):
        save_checkpoint(tmp_path / "x", TINY, dict(params, head=params["head"].T), format="orbax")
    with pytest.raises(InputError, match="cannot write format 'gguf'"):
        save_checkpoint(tmp_path / "x", TINY, params, format="gguf")
    assert not list(tmp_path.iterdir())


def test_an_existing_folder_is_kept(tmp_path, params):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "thesis.txt").write_text("precious")
    with pytest.raises(InputError, match="already exists"):
        save_checkpoint(tmp_path / "x", TINY, params, format="hf")
    assert [path.name for path in tmp_path.rglob("*")] == ["x", "thesis.txt"]


def test_unstacked_equals_stacked_then_unstacked(tmp_path):
    params = random_params(TIED)
    save_checkpoint(tmp_path / "model", TIED, params, format="orbax")
    _, loaded = load_checkpoint(tmp_path / "model", stacked=False)
    expected = unstack_blocks(params)
    assert jax.tree.structure(loaded) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, loaded, expected)


@pytest.mark.parametrize("dtype", ["int32", "no such dtype", jnp.int8])
def test_weights_are_never_cast_to_integers(tmp_path, dtype):
    save_checkpoint(tmp_path / "model", TIED, random_params(TIED), format="orbax")
    with pytest.raises(InputError, match="not one of float32, bfloat16, float16"):
        load_checkpoint(tmp_path / "model", dtype=dtype)
