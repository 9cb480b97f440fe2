"""Our Orbax folder: bit for bit, readable by Orbax itself, and damaged in every way."""

import json
import re
import shutil

import ml_dtypes
import numpy as np
import pytest

from llama_jax.checkpoints import orbax_sink
from llama_jax.checkpoints.interface import Assets, TensorSpec
from llama_jax.checkpoints.orbax import OrbaxSink, OrbaxSource
from llama_jax.config import TINY
from llama_jax.errors import InputError

DTYPES = [np.dtype(np.float32), np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)]
ASSETS = Assets({"tokenizer.model": b"ranks"}, {"eos_token_id": [1, 2]})


def write(path, tensors, specs, assets=ASSETS):
    sink = OrbaxSink(path, TINY, specs, assets)
    for name in sorted(tensors, reverse=True):  # any order
        sink.write(name, tensors[name])
    sink.finish()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, random_tensors, specs_of):
    """A whole checkpoint and its tensors."""
    path = tmp_path_factory.mktemp("orbax") / "whole"
    tensors = random_tensors(TINY)
    write(path, tensors, specs_of(tensors))
    return path, tensors


@pytest.fixture
def copy(checkpoint, tmp_path):
    """A copy to be damaged."""
    return shutil.copytree(checkpoint[0], tmp_path / "copy")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_same_bytes_come_back(tmp_path, random_tensors, specs_of, dtype):
    tensors = random_tensors(TINY, dtype)
    write(tmp_path / "checkpoint", tensors, specs_of(tensors))
    source = OrbaxSource(tmp_path / "checkpoint")
    assert source.config == TINY
    assert source.tensors == specs_of(tensors)
    assert source.assets.generation == ASSETS.generation
    assert source.assets.files["tokenizer.model"].read_bytes() == b"ranks"
    for name, tensor in tensors.items():
        assert source.read(name).tobytes() == tensor.tobytes()


def test_groups_of_any_size_give_the_same_files(
    tmp_path, random_tensors, specs_of, checkpoint, monkeypatch
):
    monkeypatch.setattr(orbax_sink, "_GROUP_BYTES", 20_000)
    tensors = random_tensors(TINY)
    write(tmp_path / "grouped", tensors, specs_of(tensors))
    source = OrbaxSource(tmp_path / "grouped")
    for name, tensor in checkpoint[1].items():
        assert source.read(name).tobytes() == tensor.tobytes()


def test_parts_are_read_through_a_memory_map(checkpoint):
    path, tensors = checkpoint
    source = OrbaxSource(path)
    index = (slice(1, 3), slice(4, 8))
    part = source.read("blocks.1.attention.query", index)
    np.testing.assert_array_equal(part, tensors["blocks.1.attention.query"][index])
    assert not part.flags.writeable and not part.flags.owndata


@pytest.mark.parametrize(
    "layout", [{"use_compression": True}, {"chunk": 4096}], ids=["compressed", "chunked"]
)
def test_reads_what_orbax_lays_out_otherwise(
    tmp_path, random_tensors, specs_of, monkeypatch, layout
):
    from orbax.checkpoint.experimental import v1 as ocp

    context = ocp.Context()
    saving = context.array.saving
    saving.use_ocdbt = False
    saving.use_compression = layout.get("use_compression", False)
    saving.storage_options.chunk_byte_size = layout.get("chunk")
    monkeypatch.setattr(orbax_sink, "_orbax_context", lambda: context)
    tensors = random_tensors(TINY)
    write(tmp_path / "other", tensors, specs_of(tensors))
    source = OrbaxSource(tmp_path / "other")
    assert source._leaves["head"]._plain_file is None
    for name, tensor in tensors.items():
        assert source.read(name).tobytes() == tensor.tobytes()
    np.testing.assert_array_equal(source.read("head", (slice(3, 9),)), tensors["head"][3:9])


@pytest.mark.filterwarnings("ignore")  # Orbax's own restoring warns that no sharding was given
def test_orbax_reads_it(checkpoint):
    from orbax.checkpoint.experimental import v1 as ocp

    path, tensors = checkpoint
    tree = ocp.load(path / "weights")
    assert tree.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert np.asarray(tree[name]).tobytes() == tensor.tobytes()


def test_unfinished_is_refused(tmp_path, random_tensors, specs_of):
    tensors = random_tensors(TINY)
    sink = OrbaxSink(tmp_path / "half", TINY, specs_of(tensors), ASSETS)
    sink.write("embedding", tensors["embedding"])
    with pytest.raises(ValueError, match="not written"):
        sink.finish()
    with pytest.raises(InputError, match="not finished"):
        OrbaxSource(tmp_path / "half")


def test_sink_refuses_what_was_not_planned(tmp_path, random_tensors, specs_of):
    tensors = random_tensors(TINY)
    specs = specs_of(tensors)
    sink = OrbaxSink(tmp_path / "x", TINY, specs, ASSETS)
    sink.write("embedding", tensors["embedding"])
    with pytest.raises(ValueError, match="written before"):
        sink.write("embedding", tensors["embedding"])
    with pytest.raises(ValueError, match="not as planned"):
        sink.write("head", tensors["head"].astype(np.float16))
    with pytest.raises(ValueError, match="not those of config"):
        OrbaxSink(tmp_path / "y", TINY, {"embedding": specs["embedding"]}, ASSETS)
    doubles = {name: TensorSpec(spec.shape, np.dtype("f8")) for name, spec in specs.items()}
    with pytest.raises(InputError, match="--dtype"):
        OrbaxSink(tmp_path / "z", TINY, doubles, ASSETS)


def change(path, **fields):
    description = json.loads((path / "llama_jax.json").read_text())
    (path / "llama_jax.json").write_text(json.dumps(description | fields))


DAMAGES = {
    "no description": (lambda path: (path / "llama_jax.json").unlink(), "not finished"),
    "no JSON": (lambda path: (path / "llama_jax.json").write_text("{"), "not valid JSON"),
    "another version": (lambda path: change(path, format_version=9), "format_version 9"),
    "no config": (lambda path: change(path, config=None), "config is missing"),
    "bad config": (lambda path: change(path, config={"vocab_size": 1}), "llama_jax.json: model"),
    "broken number": (
        lambda path: change(path, config=TINY.to_dict() | {"num_layers": 2.5}),
        "llama_jax.json: model config: num_layers must be",
    ),
    "scaling of another type": (
        lambda path: change(path, config=TINY.to_dict() | {"rope_scaling": "llama3"}),
        "llama_jax.json: ",
    ),
    "no list of files": (lambda path: change(path, files=None), "files is missing"),
    "other config": (
        lambda path: change(path, config=TINY.to_dict() | {"vocab_size": 255}),
        "the config in llama_jax.json makes it [255, 64]",
    ),
    "more layers": (
        lambda path: change(path, config=TINY.to_dict() | {"num_layers": 3}),
        "blocks.2.attention_norm.scale/zarr.json: there is no such file",
    ),
    "fewer layers": (
        lambda path: change(path, config=TINY.to_dict() | {"num_layers": 1}),
        "not a tensor of the config",
    ),
    "truncated": (
        lambda path: (path / "weights/state/head/c/0/0").write_bytes(b"x"),
        "head/c/0/0: has 1 bytes where",
    ),
    "lost leaf": (lambda path: shutil.rmtree(path / "weights/state/head"), "head/c/0/0: missing"),
    "lost weights": (lambda path: shutil.rmtree(path / "weights"), "missing; copy"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_one_line(copy, damage):
    spoil, message = DAMAGES[damage]
    spoil(copy)
    with pytest.raises(InputError, match=re.escape(message)) as error:
        OrbaxSource(copy)
    assert "\n" not in str(error.value)
