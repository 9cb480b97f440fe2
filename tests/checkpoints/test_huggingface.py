"""Hugging Face folders: against transformers and safetensors, bit for bit, and hostile ones."""

import dataclasses
import json
import re
import shutil
import struct

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from llama_jax.checkpoints.huggingface import HuggingFaceSink, HuggingFaceSource
from llama_jax.checkpoints.huggingface_config import config_to_huggingface
from llama_jax.checkpoints.interface import Assets, TensorSpec
from llama_jax.checkpoints.parameter_names import layer_tensors
from llama_jax.checkpoints.safetensors_file import SafetensorsFile
from llama_jax.config import TINY
from llama_jax.errors import InputError

SMALL = dataclasses.replace(TINY, vocab_size=40, head_dim=32)
TIED = dataclasses.replace(SMALL, tied_embeddings=True)
DTYPES = {
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}
BITS = {2: np.uint16, 4: np.uint32}


def bits(array):
    array = np.ascontiguousarray(array)
    return array.view(BITS[array.dtype.itemsize])


def random_tensors(config, dtype, seed=0):
    """Our name -> random bits, NaN payloads and infinities among them."""
    rng = np.random.default_rng(seed)
    return {
        tensor.name: np.frombuffer(
            rng.bytes(int(np.prod(tensor.shape)) * dtype.itemsize), dtype
        ).reshape(tensor.shape)
        for tensor in layer_tensors(config)
    }


def specs(tensors):
    return {name: TensorSpec(array.shape, array.dtype) for name, array in tensors.items()}


def write(path, config, tensors, assets=None, **options):
    sink = HuggingFaceSink(path, config, specs(tensors), assets or Assets(), **options)
    for name in sorted(tensors, reverse=True):  # any order
        sink.write(name, tensors[name])
    sink.finish()


def torch_bits(tensor):
    return tensor.contiguous().view({2: torch.int16, 4: torch.int32}[tensor.element_size()]).numpy()


@pytest.mark.parametrize("shard_size", ["20KB", "1GB"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("config", [SMALL, TIED], ids=["untied", "tied"])
def test_reads_what_transformers_saves(tmp_path, config, dtype, shard_size):
    theirs = LlamaConfig(**config_to_huggingface(config, DTYPES[dtype]))
    model = LlamaForCausalLM(theirs).to(getattr(torch, dtype))
    model.save_pretrained(tmp_path, max_shard_size=shard_size)
    assert (tmp_path / "model.safetensors").exists() == (shard_size == "1GB")
    source = HuggingFaceSource(tmp_path)
    assert source.config == config
    state = model.state_dict()
    for tensor in layer_tensors(config):
        ours, spec = source.read(tensor.name), source.tensors[tensor.name]
        assert (ours.shape, ours.dtype) == (spec.shape, spec.dtype) == (tensor.shape, DTYPES[dtype])
        expected = torch_bits(state[tensor.foreign_name("huggingface")])
        assert np.array_equal(bits(ours).reshape(expected.shape), expected.view(bits(ours).dtype))


@pytest.mark.parametrize("shard_bytes", [20_000, 5 * 10**9])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("config", [SMALL, TIED], ids=["untied", "tied"])
def test_transformers_reads_what_we_write(tmp_path, config, dtype, shard_bytes):
    tensors = {
        name: np.random.default_rng(1).standard_normal(array.shape).astype(DTYPES[dtype])
        for name, array in random_tensors(config, DTYPES[dtype]).items()
    }
    generation = {"bos_token_id": 3, "eos_token_id": [4, 5], "temperature": 0.6, "do_sample": True}
    write(tmp_path, config, tensors, Assets({}, generation), shard_bytes=shard_bytes)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert model.dtype == getattr(torch, dtype)
    assert model.generation_config.eos_token_id == [4, 5] and model.config.bos_token_id == 3
    state = model.state_dict()
    for tensor in layer_tensors(config):
        stored = torch_bits(state[tensor.foreign_name("huggingface")])
        assert np.array_equal(
            stored.reshape(-1).view(np.uint8), bits(tensors[tensor.name]).reshape(-1).view(np.uint8)
        )


@pytest.mark.parametrize("dtype", DTYPES)
def test_random_bits_survive_and_safetensors_agrees(tmp_path, dtype):
    tensors = random_tensors(SMALL, DTYPES[dtype])
    write(tmp_path, SMALL, tensors, shard_bytes=30_000)
    source = HuggingFaceSource(tmp_path)
    for name, array in tensors.items():
        assert np.array_equal(bits(source.read(name)), bits(array))
        index = (slice(1, None), slice(0, 1))[: array.ndim]
        assert np.array_equal(bits(source.read(name, index)), bits(array[index]))
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(array.nbytes for array in tensors.values())
    for tensor in layer_tensors(SMALL):
        name = tensor.foreign_name("huggingface")
        with safe_open(tmp_path / index["weight_map"][name], "pt") as file:
            assert file.metadata() == {"format": "pt"}
            stored = torch_bits(file.get_tensor(name))
        assert np.array_equal(
            stored.view(bits(tensors[tensor.name]).dtype).reshape(tensor.shape),
            bits(tensors[tensor.name]),
        )


def test_mixed_dtypes_are_aligned_and_declared_float32(tmp_path):
    tensors = random_tensors(SMALL, DTYPES["bfloat16"])
    for name in tensors:
        if name.endswith("scale"):
            tensors[name] = tensors[name].astype(np.float32)
    write(tmp_path, SMALL, tensors)
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "float32"
    source = HuggingFaceSource(tmp_path)
    for name, array in tensors.items():
        assert source.read(name).flags.aligned
        assert np.array_equal(bits(source.read(name)), bits(array))


def test_reads_are_views_of_the_file(tmp_path):
    write(tmp_path, SMALL, random_tensors(SMALL, DTYPES["bfloat16"]))
    source = HuggingFaceSource(tmp_path)
    for name in source.tensors:
        first = source.read(name)
        assert np.shares_memory(first, source.read(name)) and not first.flags.writeable


def test_an_unaligned_tensor_is_read(tmp_path):
    values = np.arange(6, dtype=np.float32).astype(ml_dtypes.bfloat16)
    header = json.dumps({"a": {"dtype": "BF16", "shape": [6], "data_offsets": [0, 12]}}).encode()
    header += b" " * (1 - len(header) % 2)  # an odd length: the data begin at an odd byte
    content = struct.pack("<Q", len(header)) + header + values.tobytes()
    (tmp_path / "odd.safetensors").write_bytes(content)
    read = SafetensorsFile(tmp_path / "odd.safetensors").read("a")
    assert not read.flags.aligned
    assert np.array_equal(read.astype(np.float32), np.arange(6))


def test_assets_and_generation_defaults_travel(tmp_path):
    source_path, copy = tmp_path / "a", tmp_path / "b"
    write(source_path, SMALL, random_tensors(SMALL, DTYPES["float32"]), Assets({"LICENSE": b"L"}))
    (source_path / "tokenizer.json").write_text("{}")
    (source_path / "README.md").write_text("about another repository")
    (source_path / "original").mkdir()
    (source_path / "original" / "tokenizer.model").write_text("ranks")
    fields = json.loads((source_path / "config.json").read_text())
    (source_path / "config.json").write_text(json.dumps(fields | {"eos_token_id": [7, 8]}))
    source = HuggingFaceSource(source_path)
    assert set(source.assets.files) == {"LICENSE", "tokenizer.json", "tokenizer.model"}
    assert source.assets.generation == {"eos_token_id": [7, 8]}
    write(copy, SMALL, {name: source.read(name) for name in source.tensors}, source.assets)
    again = HuggingFaceSource(copy)
    assert again.assets.generation == source.assets.generation
    assert (copy / "tokenizer.model").read_text() == "ranks"
    assert (copy / "model.safetensors").read_bytes() == (
        source_path / "model.safetensors"
    ).read_bytes()


def test_linked_files_of_the_hub_cache_are_read(tmp_path):
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "abc"
    write(blobs, SMALL, random_tensors(SMALL, DTYPES["float32"]), shard_bytes=30_000)
    snapshot.mkdir(parents=True)
    for file in blobs.iterdir():
        (snapshot / file.name).symlink_to(f"../../blobs/{file.name}")
    assert HuggingFaceSource(snapshot).config == SMALL


def test_sink_insists_on_its_plan(tmp_path):
    tensors = random_tensors(SMALL, DTYPES["float32"])
    with pytest.raises(InputError, match="int8"):
        wrong = {name: TensorSpec(a.shape, np.dtype(np.int8)) for name, a in tensors.items()}
        HuggingFaceSink(tmp_path / "new", SMALL, wrong, Assets())
    with pytest.raises(ValueError, match="not those of config"):
        HuggingFaceSink(tmp_path / "new", TIED, specs(tensors), Assets())
    assert not (tmp_path / "new").exists()
    sink = HuggingFaceSink(tmp_path / "new", SMALL, specs(tensors), Assets())
    sink.write("head", tensors["head"])
    for array in (tensors["head"], tensors["embedding"][1:], tensors["embedding"].view("i4")):
        with pytest.raises(ValueError, match="planned"):
            sink.write("head" if array is tensors["head"] else "embedding", array)
    with pytest.raises(ValueError, match="not written"):
        sink.finish()
    assert not (tmp_path / "new" / "config.json").exists()


# --- Bad input: one line that names the file, and no other exception. ---


@pytest.fixture
def sharded(tmp_path):
    write(tmp_path, SMALL, random_tensors(SMALL, DTYPES["float32"]), shard_bytes=30_000)
    return tmp_path


@pytest.fixture
def single(tmp_path):
    write(tmp_path, SMALL, random_tensors(SMALL, DTYPES["float32"]))
    return tmp_path


def refused(path, match):
    with pytest.raises(InputError, match=match) as caught:
        HuggingFaceSource(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def edit_header(path, change):
    content = path.read_bytes()
    size = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + size])
    new = json.dumps(change(header) or header).encode()
    path.write_bytes(struct.pack("<Q", len(new)) + new + content[8 + size :])


def edit_json(path, change):
    fields = json.loads(path.read_text())
    path.write_text(json.dumps(change(fields) or fields))


@pytest.mark.parametrize("keep", [0, 7, 8, 100, -1])
def test_truncated_file(single, keep):
    file = single / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    refused(single, "model.safetensors.*(cut short|bytes)")


@pytest.mark.parametrize("size", [0, 3, 2**20, 2**63, 2**64 - 1])
def test_header_length_that_lies(single, size):
    file = single / "model.safetensors"
    file.write_bytes(struct.pack("<Q", size) + file.read_bytes()[8:])
    refused(single, "model.safetensors")


NORM = "model.norm.weight"


@pytest.mark.parametrize(
    ("entry", "match"),
    [
        ({"shape": [2**62, 2**62]}, "do not agree"),
        ({"shape": [-64]}, "counts"),
        ({"shape": [64.0]}, "counts"),
        ({"shape": [True] * 6}, "counts"),
        ({"shape": [1] * 9}, "too many"),
        ({"shape": None}, "counts"),
        ({"dtype": "F64"}, "F64"),
        ({"dtype": "F8_E5M2"}, "F8_E5M2.*convert"),
        ({"dtype": ["F32"]}, "dtype"),
        ({"data_offsets": [0, 256]}, "overlaps"),
        ({"data_offsets": [2**60, 2**60 + 256]}, "gap"),
        ({"data_offsets": [256, 0]}, "do not agree"),
        ({"data_offsets": [0, 256, 512]}, "too many"),
        ({"extra": 1}, "dtype, shape and data_offsets"),
    ],
)
def test_header_entry_that_lies(single, entry, match):
    edit_header(single / "model.safetensors", lambda header: header[NORM].update(entry))
    refused(single, match)


def test_header_with_a_name_twice(single):
    file = single / "model.safetensors"
    content = file.read_bytes().replace(b"model.layers.0.", b"model.layers.1.")
    file.write_bytes(content)
    refused(single, "twice")


def test_deeply_nested_header(single):
    nested = b"[" * 200_000
    content = struct.pack("<Q", len(nested)) + nested
    (single / "model.safetensors").write_bytes(content)
    refused(single, "JSON")


@pytest.mark.parametrize(
    "name",
    ["/etc/passwd", "../model.safetensors", "a/b.safetensors", "..", "", "x\0.safetensors", 3, None]
    + ["x.safetensors\n", "model.bin", "..\\a.safetensors", ".safetensors"],
)
def test_index_that_leads_elsewhere(sharded, name):
    index = sharded / "model.safetensors.index.json"
    edit_json(index, lambda fields: fields["weight_map"].update({NORM: name}))
    refused(sharded, "plain name")


def test_index_and_files_that_disagree(sharded):
    index = sharded / "model.safetensors.index.json"
    good = index.read_text()
    names = sorted(path.name for path in sharded.glob("*.safetensors"))
    edit_json(index, lambda fields: fields["weight_map"].update({NORM: "no.safetensors"}))
    refused(sharded, "no.safetensors, which is missing")
    index.write_text(good)
    edit_json(index, lambda fields: fields["weight_map"].update({"model.more": names[0]}))
    refused(sharded, "does not have it")
    index.write_text(good)
    edit_json(index, lambda fields: fields["weight_map"].pop(NORM) and None)
    refused(sharded, "does not place there")
    index.write_text('{"weight_map": []}')
    refused(sharded, "weight_map")
    index.write_text(good)
    (sharded / names[1]).unlink()
    refused(sharded, "missing")
    for name in names:
        (sharded / name).unlink(missing_ok=True)
    index.unlink()
    refused(sharded, "has no model.safetensors")


def test_two_sets_of_weights(sharded):
    shutil.copy(next(sharded.glob("model-00001-of-*.safetensors")), sharded / "model.safetensors")
    refused(sharded, "has both")


def resave(folder, change):
    file = folder / "model.safetensors"
    with safe_open(file, "np") as opened:
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}
    change(tensors)
    save_file(tensors, file)


def test_missing_unknown_and_misshaped_tensors(single):
    good = (single / "model.safetensors").read_bytes()
    for change, match in [
        (lambda t: t.pop(NORM), f"{NORM} is missing"),
        (lambda t: t.update({NORM: np.ones(63, "f4")}), r"shape \[63\].*\[64\]"),
        (lambda t: t.update({NORM: np.ones((64, 1), "f4")}), "shape"),
        (lambda t: t.update({"model.layers.2.input_layernorm.weight": t[NORM]}), "not part"),
        (lambda t: t.update({"model.layers.0.self_attn.q_proj.bias": t[NORM]}), "not part"),
        (lambda t: t.update({"strange\nname": t[NORM]}), "not part"),
    ]:
        (single / "model.safetensors").write_bytes(good)
        resave(single, change)
        refused(single, re.compile(match))


def test_rope_tables_left_by_old_versions_are_passed_over(single):
    name = "model.layers.1.self_attn.rotary_emb.inv_freq"
    resave(single, lambda tensors: tensors.update({name: np.ones(16, "f4")}))
    assert HuggingFaceSource(single).config == SMALL


def test_tied_model_that_stores_its_head(tmp_path):
    write(tmp_path, TIED, random_tensors(TIED, DTYPES["float32"]))
    resave(tmp_path, lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"]}))
    assert "head" not in HuggingFaceSource(tmp_path).tensors
    resave(tmp_path, lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"][::-1]}))
    refused(tmp_path, "lm_head.weight differs from the embedding")


def test_config_that_claims_a_giant(single):
    edit_json(single / "config.json", lambda fields: fields.update(num_hidden_layers=2**62))
    refused(single, "model.layers.2.*missing")
    (single / "config.json").write_text("[1]")
    refused(single, "config.json.*object")
    (single / "config.json").write_bytes(b"\xff{}")
    refused(single, "config.json.*JSON")
    (single / "config.json").unlink()
    refused(single, "config.json")


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_damage_to_the_header_is_refused_or_harmless(tmp_path_factory, data):
    good = _small_file(tmp_path_factory)
    content = bytearray(good)
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, min(len(content), 700) - 1))
        content[position] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.sampled_from([len(content), len(content) - 1, 300]))]
    path = tmp_path_factory.getbasetemp() / "damaged.safetensors"
    path.write_bytes(content)
    try:
        file = SafetensorsFile(path)
    except InputError as error:
        assert "\n" not in str(error) and str(path) in str(error)
    else:
        for name, stored in file.tensors.items():
            assert file.read(name).nbytes == stored.num_bytes


def _small_file(tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "good.safetensors"
    if not path.exists():
        save_file({f"t{i}": np.ones((i, 3), "f4") for i in range(8)}, path)
    return path.read_bytes()
