"""Meta folders: what we write we read back bit for bit, and plain PyTorch reads it too."""

import dataclasses
import zipfile

import ml_dtypes
import numpy as np
import pytest

from llama_jax.checkpoints.interface import Assets
from llama_jax.checkpoints.meta import MetaSink, MetaSource
from llama_jax.checkpoints.meta_layout import same_bytes
from llama_jax.config import TINY
from llama_jax.errors import InputError

torch = pytest.importorskip("torch")


def heads(num_heads, num_kv_heads, **changes):
    sizes = {"num_heads": num_heads, "num_kv_heads": num_kv_heads, "head_dim": 64 // num_heads}
    return dataclasses.replace(TINY, **sizes | changes)


@pytest.fixture
def write(tmp_path, specs_of):
    """`(config, tensors, num_shards, assets) -> folder`, tensors written last to first."""

    def write_folder(config, tensors, num_shards=1, assets=None):
        folder = tmp_path / "checkpoint"
        sink = MetaSink(
            folder, config, specs_of(tensors), assets or Assets(), num_shards=num_shards
        )
        for name in reversed(tensors):
            sink.write(name, tensors[name])
        sink.finish()
        return folder

    return write_folder


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize(
    "num_shards, config",
    [
        (1, heads(4, 2)),
        (2, heads(4, 2)),
        (2, heads(4, 2, tied_embeddings=True)),
        (4, heads(8, 2)),  # KV heads stored twice
        (8, heads(8, 8)),
        (16, heads(16, 8)),  # as the 16-way 405B
        (16, heads(16, 1)),
        (3, heads(3, 3, model_dim=66, head_dim=22, feed_forward_dim=96, vocab_size=300)),
    ],
    ids=lambda value: value if isinstance(value, int) else value.num_kv_heads,
)
def test_round_trip_is_bit_exact(write, random_tensors, num_shards, config, dtype):
    tensors = random_tensors(config, dtype)
    source = MetaSource(write(config, tensors, num_shards))
    assert source.config == config
    assert list(source.tensors) == list(tensors)
    for name, values in tensors.items():
        assert same_bytes(source.read(name), values), name
        assert source.tensors[name].shape == values.shape


@pytest.mark.parametrize("num_shards, config", [(1, heads(4, 2)), (8, heads(8, 4))], ids=str)
def test_parts(write, random_tensors, num_shards, config):
    tensors = random_tensors(config)
    source = MetaSource(write(config, tensors, num_shards))
    for name, values in tensors.items():
        middle = tuple(slice(size // 4, size - size // 4) for size in values.shape)
        for index in (), middle[:1], middle, (slice(None), *middle[1:]), (slice(-1, None),):
            np.testing.assert_array_equal(source.read(name, index), values[index], err_msg=name)


def test_bits_that_are_not_numbers_survive(write, random_tensors):
    tensors = random_tensors(TINY, ml_dtypes.bfloat16)
    tensors["head"] = np.arange(256 * 64, dtype=np.uint16).reshape(256, 64).view(ml_dtypes.bfloat16)
    tensors["head"].view(np.uint16)[0] = np.arange(0x7F70, 0x7FB0)  # NaNs with payloads
    key = tensors["blocks.0.attention.key"].view(np.uint16)
    key[:, 0] = np.arange(0x7F70, 0x7FB0)
    source = MetaSource(write(TINY, tensors, 2))
    assert source.config == TINY
    for name in "head", "blocks.0.attention.key":
        assert same_bytes(source.read(name), tensors[name])


def test_one_shard_is_read_through_the_memory_map(write, random_tensors):
    source = MetaSource(write(TINY, random_tensors(TINY)))
    whole, again = (
        source.read("blocks.1.feed_forward.gate"),
        source.read("blocks.1.feed_forward.gate"),
    )
    assert np.shares_memory(whole, again)
    assert not whole.flags.writeable


def test_plain_torch_reads_our_files(write, random_tensors):
    tensors = random_tensors(TINY, ml_dtypes.bfloat16)
    path = write(TINY, tensors) / "consolidated.00.pth"
    mapped = torch.load(path, weights_only=True, mmap=True)
    loaded = torch.load(path, weights_only=True)
    assert list(mapped) == list(loaded)
    assert list(mapped)[0] == "tok_embeddings.weight"
    assert zipfile.ZipFile(path).testzip() is None
    for name, tensor in mapped.items():
        assert torch.equal(tensor, loaded[name])
        assert tensor.data_ptr() % 64 == 0
    gate = mapped["layers.1.feed_forward.w1.weight"].view(torch.int16).numpy()
    np.testing.assert_array_equal(gate, tensors["blocks.1.feed_forward.gate"].view(np.int16))


def test_mixed_dtypes(write, random_tensors):
    tensors = random_tensors(TINY, ml_dtypes.bfloat16)
    tensors["final_norm.scale"] = tensors["final_norm.scale"].astype(np.float32)
    source = MetaSource(write(TINY, tensors, 2))
    assert source.tensors["final_norm.scale"].dtype == np.float32
    assert same_bytes(source.read("final_norm.scale"), tensors["final_norm.scale"])


def test_assets_travel(write, random_tensors, caplog):
    assets = Assets({"tokenizer.model": b"ranks", "LICENSE": b"terms"}, {"eos_token_id": [1, 2]})
    source = MetaSource(write(TINY, random_tensors(TINY), 1, assets))
    files = {name: path.read_bytes() for name, path in source.assets.files.items()}
    assert files == assets.files
    assert source.assets.generation == assets.generation
    assert "tokenizer.model" not in caplog.text


def test_a_missing_tokenizer_model_is_said(write, random_tensors, caplog):
    folder = write(TINY, random_tensors(TINY), 1, Assets({"tokenizer.json": b"{}"}))
    assert (folder / "tokenizer.json").read_bytes() == b"{}"
    assert "has no tokenizer.model" in caplog.text


def save(folder, shards):
    for number, shard in enumerate(shards):
        torch.save(shard, folder / f"consolidated.{number:02}.pth")


def test_llama_2_cuts_the_embedding_by_width(write, random_tensors):
    tensors = random_tensors(TINY)
    folder = write(TINY, tensors, 2)
    embedding = torch.from_numpy(tensors["embedding"])
    shards = [torch.load(path) for path in sorted(folder.glob("*.pth"))]
    for shard, part in zip(shards, embedding.chunk(2, dim=1), strict=True):
        shard["tok_embeddings.weight"] = part.clone()
        shard["rope.freqs"] = torch.ones(8)
    save(folder, shards)
    source = MetaSource(folder)
    np.testing.assert_array_equal(source.read("embedding"), tensors["embedding"])
    np.testing.assert_array_equal(
        source.read("embedding", (slice(3, 9), slice(30, 40))), tensors["embedding"][3:9, 30:40]
    )


def test_equal_heads_of_one_constant_are_no_copies(write, random_tensors):
    """A file of zeros keeps its heads: that they are equal says nothing."""
    config = heads(8, 4)
    tensors = {name: np.zeros_like(values) for name, values in random_tensors(config).items()}
    tensors["head"] += 1
    assert MetaSource(write(config, tensors, 4)).config == config


def test_copies_that_differ_later_are_refused(write, random_tensors):
    folder = write(heads(8, 4), random_tensors(heads(8, 4)), 8)
    shards = [torch.load(path) for path in sorted(folder.glob("*.pth"))]
    shards[5]["layers.1.attention.wv.weight"][3, 3] += 1
    save(folder, shards)
    source = MetaSource(folder)
    with pytest.raises(InputError, match=r"blocks\.1\.attention\.value: stored KV heads"):
        source.read("blocks.1.attention.value")


def test_replicated_tensors_must_agree(write, random_tensors):
    folder = write(TINY, random_tensors(TINY), 2)
    shards = [torch.load(path) for path in sorted(folder.glob("*.pth"))]
    shards[1]["norm.weight"][0] += 1
    save(folder, shards)
    with pytest.raises(InputError, match=r"final_norm\.scale differs between shards"):
        MetaSource(folder).read("final_norm.scale")
