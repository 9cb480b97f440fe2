"""Conversion: the same bytes there and back, killed at any moment, in bounded memory."""

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from llama_jax.checkpoints import staging
from llama_jax.checkpoints.convert import _shard_bytes, convert
from llama_jax.checkpoints.formats import detect_format, open_source
from llama_jax.checkpoints.huggingface import HuggingFaceSink
from llama_jax.checkpoints.interface import Assets
from llama_jax.checkpoints.orbax import OrbaxSink
from llama_jax.checkpoints.parameter_names import layer_tensors
from llama_jax.config import TINY, NtkScaling
from llama_jax.errors import InputError

ROOT = Path(__file__).parents[2]
DTYPES = {"float32": np.dtype(np.float32), "bfloat16": np.dtype(ml_dtypes.bfloat16)}
TIED = dataclasses.replace(TINY, tied_embeddings=True)
GENERATION = {"bos_token_id": 1, "eos_token_id": [2, 3]}
TEMPLATES = {
    "chat_template.jinja": b"{{ messages }}",
    "additional_chat_templates/tool_use.jinja": b"{{ tools }}",
}


def write_huggingface(path, config, pairs, specs, **options):
    sink = HuggingFaceSink(path, config, specs, Assets(TEMPLATES, GENERATION), **options)
    for name, tensor in pairs:
        sink.write(name, tensor)
    sink.finish()


@pytest.fixture
def make_checkpoint(tmp_path, random_tensors, specs_of):
    def make(config=TINY, dtype="float32"):
        tensors = random_tensors(config, DTYPES[dtype])
        write_huggingface(tmp_path / "source", config, tensors.items(), specs_of(tensors))
        return tmp_path / "source"

    return make


def assert_same_tensors(a, b):
    a, b = open_source(a), open_source(b)
    assert a.config == b.config
    assert a.tensors == b.tensors
    for name in a.tensors:
        assert a.read(name).tobytes() == b.read(name).tobytes()


def files_below(folder):
    """Path -> content."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder): path.read_bytes() for path in paths}


def convert_quietly(*arguments, **options):
    return convert(*arguments, quiet=True, say=lambda line: None, **options)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("config", [TINY, TIED], ids=["untied", "tied"])
@pytest.mark.parametrize(
    "path",
    [("hf", "orbax", "hf"), ("hf", "meta", "hf"), ("meta", "orbax", "meta")],
    ids=" ".join,
)
def test_there_and_back_gives_the_same_bytes(tmp_path, make_checkpoint, path, config, dtype):
    place = make_checkpoint(config, dtype)
    if path[0] == "meta":
        convert_quietly(place, tmp_path / "first", to="meta", shards=2)
        place = tmp_path / "first"
    for number, to in enumerate(path[1:]):
        convert_quietly(
            place if number == 0 else tmp_path / f"{number - 1}", tmp_path / f"{number}", to=to
        )
    assert_same_tensors(place, tmp_path / "1")
    assert open_source(tmp_path / "1").assets.generation == GENERATION
    assert open_source(tmp_path / "1").assets.files.keys() == TEMPLATES.keys()
    if path[0] == "hf":
        assert files_below(place) == files_below(tmp_path / "1")


def test_cast_is_announced_and_rounds_to_nearest(tmp_path, make_checkpoint):
    source, lines = make_checkpoint(), []
    convert(source, tmp_path / "x", to="hf", dtype="bfloat16", quiet=True, say=lines.append)
    assert lines == ["note: float32 to bfloat16 rounds the weights"]
    written = open_source(tmp_path / "x")
    for name, spec in written.tensors.items():
        assert spec.dtype == DTYPES["bfloat16"]
        expected = np.array(open_source(source).read(name)).astype(ml_dtypes.bfloat16)
        assert written.read(name).tobytes() == expected.tobytes()
    lines.clear()
    convert(tmp_path / "x", tmp_path / "y", to="hf", dtype="float32", quiet=True, say=lines.append)
    assert lines == []


@pytest.mark.parametrize("to", ["hf", "meta"])
def test_ntk_scaling_becomes_the_theta_it_amounts_to(tmp_path, random_tensors, specs_of, to):
    config = dataclasses.replace(TINY, rope_scaling=NtkScaling(4.0))
    tensors, lines = random_tensors(config, np.dtype(np.float32)), []
    sink = OrbaxSink(tmp_path / "source", config, specs_of(tensors), Assets())
    for name, tensor in tensors.items():
        sink.write(name, tensor)
    sink.finish()
    convert(tmp_path / "source", tmp_path / "x", to=to, quiet=True, say=lines.append)
    assert open_source(tmp_path / "x").config == config.fold_ntk()
    assert [line for line in lines if "rope_theta" in line]


def test_values_beyond_float16_are_refused(tmp_path, random_tensors, specs_of):
    tensors = random_tensors(TINY)
    tensors["head"][0, 0] = 1e6
    write_huggingface(tmp_path / "source", TINY, tensors.items(), specs_of(tensors))
    with pytest.raises(InputError, match="head has values beyond the range of float16"):
        convert_quietly(tmp_path / "source", tmp_path / "x", to="hf", dtype="float16")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_reports_what_it_did(tmp_path, make_checkpoint):
    done = convert_quietly(make_checkpoint(), tmp_path / "x", to="hf")
    assert done.num_bytes == sum(
        spec.num_bytes for spec in open_source(tmp_path / "x").tensors.values()
    )
    assert done.peak_anonymous_bytes > 0
    assert "MB/s" in str(done) and "peak anonymous memory" in str(done)


# What may be wrong with the arguments, and what the line says.
REFUSED = {
    "shards of orbax": ({"to": "orbax", "shards": 2}, "--shards: an Orbax checkpoint"),
    "no shard": ({"to": "hf", "shards": 0}, "--shards: 0"),
    "shards that do not divide": ({"to": "meta", "shards": 3}, "3"),
    "unknown format": ({"to": "gguf"}, "cannot write format 'gguf'"),
    "unknown dtype": ({"to": "hf", "dtype": "int8"}, "dtype 'int8' is not one of"),
    "template without use": ({"to": "hf", "chat_template": "llama31"}, "--chat-template"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_arguments_leave_nothing(tmp_path, make_checkpoint, case):
    options, message = REFUSED[case]
    source = make_checkpoint()
    with pytest.raises(InputError, match=message) as error:
        convert_quietly(source, tmp_path / "x", **options)
    assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_destination_must_be_free(tmp_path, make_checkpoint):
    source = make_checkpoint()
    with pytest.raises(InputError, match="already exists"):
        convert_quietly(source, source, to="orbax")
    (tmp_path / "empty").mkdir()
    convert_quietly(source, tmp_path / "empty", to="hf")
    assert_same_tensors(source, tmp_path / "empty")
    convert_quietly(source, tmp_path / "empty", to="hf", dtype="bfloat16", overwrite=True)
    assert open_source(tmp_path / "empty").tensors["head"].dtype == DTYPES["bfloat16"]


@pytest.mark.parametrize(
    "precious",
    ["thesis.txt", "src/thesis.txt", "weights/mine.pt", "additional_chat_templates/thesis.txt"],
)
@pytest.mark.parametrize("name", ["config.json", "params.json"])
def test_only_a_checkpoint_is_overwritten(tmp_path, make_checkpoint, name, precious):
    source, home = make_checkpoint(), tmp_path / "home"
    (home / precious).parent.mkdir(parents=True)
    (home / name).write_text("{}")
    (home / precious).write_text("precious")
    with pytest.raises(InputError, match=f"{precious.split('/')[0]}: is not part of a checkpoint"):
        convert_quietly(source, home, to="hf", overwrite=True)
    assert (home / precious).read_text() == "precious"


@pytest.mark.parametrize("to", ["hf", "meta", "orbax"])
def test_what_is_written_may_be_overwritten(tmp_path, make_checkpoint, to):
    source = make_checkpoint()
    for _ in range(2):
        convert_quietly(source, tmp_path / "x", to=to, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source", "x"]
    assert_same_tensors(source, tmp_path / "x")


def test_what_appears_meanwhile_is_kept(tmp_path, make_checkpoint, monkeypatch):
    source = make_checkpoint()
    convert_quietly(source, tmp_path / "x", to="hf")
    write = staging._bring_to_disk
    monkeypatch.setattr(
        staging,
        "_bring_to_disk",
        lambda folder: [write(folder), (tmp_path / "x" / "thesis.txt").touch()],
    )
    with pytest.raises(InputError, match="thesis.txt: is not part of a checkpoint"):
        convert_quietly(source, tmp_path / "x", to="hf", overwrite=True)
    assert (tmp_path / "x" / "thesis.txt").exists()


def test_places_that_must_not_go_are_refused(tmp_path, make_checkpoint, monkeypatch):
    source = make_checkpoint()
    with pytest.raises(InputError, match="holds the source"):
        convert_quietly(source, source, to="orbax", overwrite=True)
    before = files_below(source)
    monkeypatch.chdir(source)
    convert_quietly(source, tmp_path / "x", to="hf")
    monkeypatch.chdir(tmp_path / "x")
    with pytest.raises(InputError, match="is where you are"):
        convert_quietly(source, ".", to="hf", overwrite=True)
    (tmp_path / "link").symlink_to(tmp_path / "x")
    (tmp_path / "file").touch()
    for overwrite in (False, True):
        with pytest.raises(InputError, match="is a link"):
            convert_quietly(source, tmp_path / "link", to="hf", overwrite=overwrite)
        with pytest.raises(InputError, match="already exists"):
            convert_quietly(source, tmp_path / "file", to="hf", overwrite=overwrite)
    assert files_below(source) == files_below(tmp_path / "x") == before


def test_killed_between_the_renames_the_old_one_comes_back(tmp_path, make_checkpoint):
    source = make_checkpoint()
    convert_quietly(source, tmp_path / "x", to="hf")
    arguments = (source, tmp_path / "x", "meta", "staging", "os.rename", 2, "SIGKILL")
    result = run_python(KILLED, *arguments)
    assert result.returncode == -signal.SIGKILL, result.stderr
    left = ["source", "x.incomplete", "x.lock", "x.replaced"]
    assert sorted(path.name for path in tmp_path.iterdir()) == left
    lines = []
    with pytest.raises(InputError, match="already exists"):
        convert(source, tmp_path / "x", to="meta", quiet=True, say=lines.append)
    assert "back, which an interrupted run was about to replace" in lines[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source", "x"]
    assert files_below(tmp_path / "x") == files_below(source)


def test_a_failing_rename_brings_the_old_one_back(tmp_path, make_checkpoint, monkeypatch):
    source = make_checkpoint()
    convert_quietly(source, tmp_path / "x", to="hf")
    rename = os.rename

    def failing(old, new):
        if str(old).endswith(".incomplete"):
            raise OSError(5, "Input/output error")
        rename(old, new)

    monkeypatch.setattr(staging.os, "rename", failing)
    with pytest.raises(OSError, match="Input/output error"):
        convert_quietly(source, tmp_path / "x", to="meta", overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source", "x"]
    assert files_below(tmp_path / "x") == files_below(source)


def test_two_at_once_do_not_mix(tmp_path, make_checkpoint):
    source = make_checkpoint()
    with staging.staged_folder(tmp_path / "x", num_bytes=0) as folder:
        (folder / "begun").touch()
        with pytest.raises(InputError, match="another process is writing it"):
            convert_quietly(source, tmp_path / "x", to="hf")
        assert (folder / "begun").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source", "x"]


def test_too_little_room_is_said_before_writing(tmp_path, make_checkpoint, monkeypatch):
    source = make_checkpoint()
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(staging.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(InputError, match="its disk has 1,000 free"):
        convert_quietly(source, tmp_path / "x", to="hf")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_wrong_byte_is_found(tmp_path, make_checkpoint, monkeypatch):
    write = HuggingFaceSink.write

    def flipping(self, name, tensor):
        if name == "blocks.1.feed_forward.up":
            tensor = tensor.copy()
            tensor[5, 5] += 1
        write(self, name, tensor)

    source = make_checkpoint()
    monkeypatch.setattr(HuggingFaceSink, "write", flipping)
    with pytest.raises(InputError, match="blocks.1.feed_forward.up, read back, is not"):
        convert_quietly(source, tmp_path / "x", to="hf")
    assert not (tmp_path / "x").exists()


def test_shards_are_as_many_as_asked(tmp_path, make_checkpoint):
    source = make_checkpoint()
    for shards in (1, 2, 5):
        convert_quietly(source, tmp_path / f"{shards}", to="hf", shards=shards)
        assert len(list((tmp_path / f"{shards}").glob("*.safetensors"))) == shards
        assert_same_tensors(source, tmp_path / f"{shards}")


def test_shard_bytes_is_the_least_that_does():
    sizes = [5, 1, 4, 4, 2, 9]

    def count(limit):
        number, room = 1, limit
        for size in sizes:
            if size > room and room < limit:
                number, room = number + 1, limit
            room -= size
        return number

    for shards in range(1, 8):
        limit = _shard_bytes(sizes, shards)
        assert count(limit) <= shards
        assert limit == -(-sum(sizes) // shards) or count(limit - 1) > shards


# The moment of a SIGKILL: module and attribute, and the number of the call that is not survived.
MOMENTS = {
    "hf, a tensor": ("hf", "huggingface_sink", "HuggingFaceSink.write", 5),
    "hf, finishing": ("hf", "huggingface_sink", "write_json", 1),
    "hf, verifying": ("hf", "convert", "_verify", 1),
    "orbax, second group": ("orbax", "orbax_sink", "OrbaxSink._save_group", 5),
    "orbax, describing": ("orbax", "orbax_sink", "write_json", 1),
    "orbax, renaming": ("orbax", "staging", "_bring_to_disk", 1),
    "meta, a tensor": ("meta", "meta_sink", "MetaSink.write", 5),
}
KILLED = """
import importlib, os, signal, sys
from llama_jax.checkpoints import convert, orbax_sink
orbax_sink._GROUP_BYTES = 20_000
source, destination, to, module, attribute, number, signal_name = sys.argv[1:]
owner = importlib.import_module("llama_jax.checkpoints." + module)
*parents, name = attribute.split(".")
for parent in parents:
    owner = getattr(owner, parent)
original, calls = getattr(owner, name), []
def deadly(*args, **kwargs):
    calls.append(None)
    if len(calls) == int(number):
        os.kill(os.getpid(), getattr(signal, signal_name))
    return original(*args, **kwargs)
setattr(owner, name, deadly)
convert.convert(source, destination, to=to, quiet=True, overwrite=True)
"""


def run_python(code, *arguments):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": ""}
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_it_leaves_nothing_whole_and_runs_again(tmp_path, make_checkpoint, moment):
    to, module, attribute, number = MOMENTS[moment]
    source = make_checkpoint()
    result = run_python(KILLED, source, tmp_path / "x", to, module, attribute, number, "SIGKILL")
    assert result.returncode == -signal.SIGKILL, result.stderr
    assert not (tmp_path / "x").exists()
    assert (tmp_path / "x.incomplete").exists()
    lines = []
    convert(source, tmp_path / "x", to=to, quiet=True, say=lines.append)
    assert "left by an interrupted run" in lines[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source", "x"]
    assert_same_tensors(source, tmp_path / "x")


@pytest.mark.parametrize("moment", ["hf, a tensor", "orbax, second group"])
def test_interrupted_it_cleans_up(tmp_path, make_checkpoint, moment):
    to, module, attribute, number = MOMENTS[moment]
    source = make_checkpoint()
    result = run_python(KILLED, source, tmp_path / "x", to, module, attribute, number, "SIGINT")
    assert result.returncode != 0
    assert result.stderr.splitlines()[-1] == "KeyboardInterrupt"
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


MEASURED = """
import sys
from llama_jax.checkpoints.convert import convert
source, destination, to = sys.argv[1:]
print(convert(source, destination, to=to, quiet=True).peak_anonymous_bytes)
"""


def test_memory_does_not_grow_with_the_model(tmp_path, specs_of):
    config = dataclasses.replace(
        TINY,
        vocab_size=32_000,
        num_layers=8,
        model_dim=2048,
        num_heads=16,
        num_kv_heads=4,
        head_dim=128,
        feed_forward_dim=8192,
    )
    piece = np.random.default_rng(0).integers(0, 2**16, 2**20, np.uint16)
    piece = piece.view(ml_dtypes.bfloat16)
    shapes = {tensor.name: tensor.shape for tensor in layer_tensors(config)}
    tensors = {name: np.broadcast_to(piece[:1], shape) for name, shape in shapes.items()}
    specs = specs_of(tensors)
    total = sum(spec.num_bytes for spec in specs.values())
    assert total > 1e9
    filled = ((name, np.resize(piece, shape)) for name, shape in shapes.items())
    write_huggingface(tmp_path / "hf", config, filled, specs)
    peaks = []
    for start, to in (("hf", "orbax"), ("orbax", "meta"), ("meta", "hf")):
        result = run_python(MEASURED, tmp_path / start, tmp_path / f"to_{to}", to)
        assert result.returncode == 0, result.stderr
        peaks.append(int(result.stdout))
        shutil.rmtree(tmp_path / start)
        (tmp_path / f"to_{to}").rename(tmp_path / to)
    to_orbax, to_meta, to_huggingface = peaks
    largest = max(spec.num_bytes for spec in specs.values())
    # The goal is 1.5 GiB and twice the largest tensor whatever the size. A checkpoint of 1 GB would
    # keep that even if it were held whole, so the bounds here are of what is really needed: Python
    # with JAX and Orbax has 0.2 GB, and a group of half a GB is copied once.
    assert to_orbax < 200e6 + 2**29 + largest < 0.9 * total
    assert to_meta < 300e6 + 2 * largest
    assert to_huggingface < 300e6 + 2 * largest


def test_formats_are_told_by_content(tmp_path, make_checkpoint):
    source = make_checkpoint()
    assert detect_format(source) == "hf"
    for to in ("orbax", "meta"):
        convert_quietly(source, tmp_path / to, to=to)
        assert detect_format(tmp_path / to) == to
    (tmp_path / "file").write_bytes(b"GGUF")
    assert detect_format(tmp_path / "file") == "gguf"
    (tmp_path / "file").write_bytes(b"text")
    (tmp_path / "none").mkdir()
    for path, message in {
        tmp_path / "file": "not a GGUF file",
        tmp_path / "none": "looked for llama_jax.json",
        tmp_path / "absent": "no such file or folder",
    }.items():
        with pytest.raises(InputError, match=message):
            detect_format(path)
    for name in "ab":
        (tmp_path / "none" / f"{name}.gguf").touch()
    with pytest.raises(InputError, match="holds 2 .gguf files"):
        detect_format(tmp_path / "none")
    (tmp_path / "orbax" / "llama_jax.json").unlink()
    (tmp_path / "orbax" / "weights").rename(tmp_path / "orbax" / "weights.partial_save")
    with pytest.raises(InputError, match="not finished"):
        open_source(tmp_path / "orbax")
    (tmp_path / "meta" / "config.json").touch()
    with pytest.raises(InputError, match="holds both"):
        detect_format(tmp_path / "meta")
