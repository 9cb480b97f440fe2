"""Meta folders that are damaged, hostile or of another network: one line that names the file."""

import dataclasses
import os
import pickle
import resource
import shutil
import sys
import zipfile

import numpy as np
import pytest

from llama_jax.checkpoints.interface import Assets
from llama_jax.checkpoints.meta import MetaSink, MetaSource
from llama_jax.checkpoints.pth_reader import read_pth
from llama_jax.config import TINY, LinearScaling
from llama_jax.errors import InputError

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def good(tmp_path_factory, random_tensors, specs_of):
    """A good folder in two files, to be copied and spoilt."""
    folder = tmp_path_factory.mktemp("meta") / "good"
    tensors = random_tensors(TINY)
    sink = MetaSink(folder, TINY, specs_of(tensors), Assets(), num_shards=2)
    for name, values in tensors.items():
        sink.write(name, values)
    sink.finish()
    return folder


@pytest.fixture
def folder(good, tmp_path):
    return shutil.copytree(good, tmp_path / "checkpoint")


def refuses(folder, message):
    with pytest.raises(InputError, match=message) as caught:
        MetaSource(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


def change(folder, edit, number=0):
    """Saves shard `number` again, as `edit(state)` leaves it."""
    path = folder / f"consolidated.{number:02}.pth"
    state = torch.load(path)
    edited = edit(state)
    torch.save(state if edited is None else edited, path)


def without(name):
    return lambda state: {key: value for key, value in state.items() if key != name}


class RunsCode:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_code_in_the_pickle_is_not_run(folder, tmp_path):
    change(folder, lambda state: state.update(extra=RunsCode(tmp_path / "owned")))
    refuses(folder, r"consolidated\.00\.pth: its pickle holds code")
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("kept", [0, 1, 3, 30, 1000, 0.5, 0.9, -30, -1])
def test_cut_off_files(folder, kept):
    path = folder / "consolidated.01.pth"
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content)) if 0 < kept < 1 else kept])
    refuses(folder, r"consolidated\.01\.pth: not a whole \.pth file")


def test_changed_bytes_never_end_in_a_traceback(tmp_path):
    path = tmp_path / "small.pth"
    torch.save({"a": torch.ones(3), "b": torch.ones(2, 2, dtype=torch.bfloat16)}, path)
    good = path.read_bytes()
    random = np.random.default_rng(0)
    with zipfile.ZipFile(path) as archive:
        start = good.index(archive.read("small/data.pkl"))
        length = len(archive.read("small/data.pkl"))
        directory = archive.start_dir
    refused = 0
    for trial in range(600):
        low, high = (start, start + length) if trial % 2 else (directory, len(good))
        content = bytearray(good)
        content[random.integers(low, high)] = random.integers(256)
        path.write_bytes(content)
        try:
            read_pth(path)
        except InputError as error:
            assert "\n" not in str(error) and str(path) in str(error)
            refused += 1
    assert refused > 300


def test_a_pickle_that_claims_more_than_its_record(folder):
    path = folder / "consolidated.00.pth"
    content = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        pickled = archive.read("consolidated.00/data.pkl")
    # The number of elements of the first storage, 128 * 64, and its tensor's rows.
    claims = pickled.replace(pickle.dumps(8192, 2)[2:-1], pickle.dumps(8448, 2)[2:-1], 1)
    claims = claims.replace(pickle.dumps(128, 2)[2:-1], pickle.dumps(132, 2)[2:-1], 1)
    assert claims != pickled
    path.write_bytes(content.replace(pickled, claims))
    refuses(folder, "sizes of tensors and records differ|damaged")


def test_old_format(folder):
    path = folder / "consolidated.00.pth"
    torch.save(torch.load(path), path, _use_new_zipfile_serialization=False)
    refuses(folder, "older than 1.6")


def test_compressed_archive(folder):
    path = folder / "consolidated.00.pth"
    with zipfile.ZipFile(path) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in records.items():
            archive.writestr(name, content)
    refuses(folder, "compressed")


def test_other_zip(folder):
    with zipfile.ZipFile(folder / "consolidated.00.pth", "w") as archive:
        archive.writestr("word/document.xml", "<xml/>")
    refuses(folder, "not a state dict")


@pytest.mark.parametrize(
    "edit, message",
    [
        (lambda state: list(state.values()), "must hold a dict of tensors, not list"),
        (lambda state: {"model": state}, "entry model is not a plain tensor"),
        (lambda state: state.update(step=3), "entry step is not a plain tensor"),
        (
            lambda state: state.update({"norm.weight": torch.eye(64).to_sparse()}),
            "entry norm.weight is not a plain tensor",
        ),
        (
            lambda state: state.update({"norm.weight": torch.ones(64, dtype=torch.int8)}),
            "norm.weight is torch.int8; need float32",
        ),
        (
            lambda state: state.update({"norm.weight": torch.ones(64).bfloat16()}),
            "norm.weight is not of the dtype",
        ),
        (
            lambda state: state.update({"norm.weight": torch.ones(32)}),
            r"norm.weight has shape \(32,\), but params.json and 2 shards need \(64,\)",
        ),
        (
            lambda state: state.update({"tok_embeddings.weight": torch.ones(2, 2)}),
            "tok_embeddings.weight has shape",
        ),
        (without("norm.weight"), "tensor norm.weight is missing"),
        (without("output.weight"), "tensor output.weight is missing"),
        (lambda state: state.update({3: torch.ones(2)}) or state, "has a key 3"),
        (
            lambda state: state.update({"layers.0.feed_forward.router": torch.ones(2)}),
            "unknown tensor layers.0.feed_forward.router",
        ),
    ],
)
def test_wrong_content(folder, edit, message):
    change(folder, edit, number=1)
    refuses(folder, rf"consolidated\.0\d\.pth: .*{message}")


def test_more_layers_than_the_file_has(folder):
    text = (folder / "params.json").read_text()
    (folder / "params.json").write_text(text.replace('"n_layers": 2', '"n_layers": 1000000000'))
    refuses(folder, r"layers\.2\.attention_norm\.weight is missing")


def test_a_hole_in_the_numbering(folder):
    (folder / "consolidated.01.pth").rename(folder / "consolidated.02.pth")
    refuses(folder, r"consolidated\.01\.pth is missing though consolidated\.02\.pth is there")


def test_a_shard_is_missing(folder):
    (folder / "consolidated.01.pth").unlink()
    refuses(folder, "need|missing")


def test_a_count_that_does_not_divide(folder):
    shutil.copy(folder / "consolidated.01.pth", folder / "consolidated.02.pth")
    refuses(folder, "3 consolidated files do not divide num_heads 4")


def test_no_params_and_no_folder(folder):
    (folder / "params.json").unlink()
    refuses(folder, r"params\.json")
    refuses(folder / "nowhere", "not a folder")
    (folder / "empty").mkdir()
    refuses(folder / "empty", r"no consolidated\.00\.pth")


def test_without_torch_the_extra_is_named(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(InputError, match=r"pip install '\.\[torch\]'"):
        MetaSource(folder)


@pytest.mark.parametrize(
    "config, num_shards, message",
    [
        (TINY, 0, "at least 1"),
        (TINY, 3, "does not divide the 4 query heads"),
        (TINY, 8, "does not divide the 4 query heads"),
        (dataclasses.replace(TINY, num_heads=6, num_kv_heads=3, model_dim=96), 2, "3 KV heads"),
        (dataclasses.replace(TINY, vocab_size=255), 2, "255 vocabulary rows"),
        (dataclasses.replace(TINY, feed_forward_dim=127), 2, "127 feed-forward width"),
        (dataclasses.replace(TINY, rope_scaling=LinearScaling(2.0)), 1, "cannot express"),
    ],
)
def test_what_cannot_be_written_leaves_nothing(
    tmp_path, random_tensors, specs_of, config, num_shards, message
):
    specs = specs_of(random_tensors(config))
    with pytest.raises(InputError, match=message):
        MetaSink(tmp_path / "out", config, specs, Assets(), num_shards=num_shards)
    assert not (tmp_path / "out").exists()


def test_other_dtypes_are_refused(tmp_path, random_tensors, specs_of):
    specs = specs_of(random_tensors(TINY, np.float64))
    with pytest.raises(InputError, match="use --dtype float32"):
        MetaSink(tmp_path / "out", TINY, specs, Assets(), num_shards=1)


def test_a_disk_that_fills_meanwhile(tmp_path, random_tensors, specs_of):
    """An `OSError`, and a file that is not taken for a whole one."""
    tensors = random_tensors(TINY)
    sink = MetaSink(tmp_path / "out", TINY, specs_of(tensors), Assets(), num_shards=1)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
        with pytest.raises(OSError, match="File too large"):
            for name, values in tensors.items():
                sink.write(name, values)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    del sink
    with pytest.raises(InputError, match="not a whole"):
        read_pth(tmp_path / "out" / "consolidated.00.pth")


def test_an_interrupted_file_is_not_whole(tmp_path, random_tensors, specs_of):
    tensors = random_tensors(TINY)
    sink = MetaSink(tmp_path / "out", TINY, specs_of(tensors), Assets(), num_shards=1)
    sink.write("embedding", tensors["embedding"])
    with pytest.raises(ValueError, match="not written: blocks"):
        sink.finish()
    with pytest.raises(ValueError, match="written before"):
        sink.write("embedding", tensors["embedding"])
    del sink
    with pytest.raises(InputError, match="not a state dict"):
        read_pth(tmp_path / "out" / "consolidated.00.pth")
