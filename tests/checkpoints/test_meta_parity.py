"""Our reading, writing and model against Meta's reference code, in both directions.

The reference runs in its own processes (`meta_reference.py`), two for model-parallel size 2. Sizes
8 and 16 are loaded by Meta's own resharding into one process.
"""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from llama_jax.checkpoints.interface import Assets
from llama_jax.checkpoints.meta import MetaSink, MetaSource
from llama_jax.checkpoints.meta_params import params_from_config
from llama_jax.config import TINY
from llama_jax.model import forward, logits

pytest.importorskip("torch")
pytest.importorskip("fairscale")
pytest.importorskip("llama_models")

# 16 heads on 8 KV heads, so that 16 shards need copies of KV heads, as the 405B does.
CONFIG = dataclasses.replace(
    TINY, model_dim=128, num_heads=16, num_kv_heads=8, head_dim=8, feed_forward_dim=256
)
# Near 0, 50,000 and 100,000 in one sequence: distances on which every band of the scaling acts.
POSITIONS = np.concatenate([np.arange(8), np.arange(8) + 50_000, np.arange(8) + 100_000])
TOKENS = np.random.default_rng(1).integers(0, CONFIG.vocab_size, (2, len(POSITIONS)))
# float32 over two layers with sums in another order; sine and cosine of the same bits of angle.
TOLERANCE = 2e-5


def run_reference(folder: Path, jobs: list[dict], num_processes: int) -> None:
    np.savez(folder / "inputs.npz", tokens=TOKENS, positions=POSITIONS)
    (folder / "jobs.json").write_text(json.dumps(jobs, default=str))
    program = Path(__file__).with_name("meta_reference.py")
    store = folder / f"store{num_processes}"
    processes = [
        subprocess.Popen(
            [sys.executable, program, str(rank), str(num_processes), store, folder / "jobs.json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(num_processes)
    ]
    try:
        for process in processes:
            output, _ = process.communicate(timeout=120)
            assert process.returncode == 0, output
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def our_logits(folder: Path, **changes) -> np.ndarray:
    source = MetaSource(folder)
    config = dataclasses.replace(source.config, **changes)
    params = {}
    for name in source.tensors:
        *path, leaf = name.replace("blocks.0.", "blocks.").split(".")
        if path[:1] == ["blocks"] and path[1].isdigit():
            continue
        layers = [name.replace(".0.", f".{layer}.") for layer in range(config.num_layers)]
        inner = params
        for key in path:
            inner = inner.setdefault(key, {})
        values = [source.read(layer) for layer in layers]
        inner[leaf] = np.stack(values) if path[:1] == ["blocks"] else values[0]
    positions = jnp.broadcast_to(POSITIONS, TOKENS.shape)
    hidden = jax.jit(forward, static_argnames="config")(
        params, jnp.asarray(TOKENS), config=config, positions=positions
    )
    return np.asarray(logits(params, hidden, config=config))


def assert_same_logits(actual, expected):
    assert expected.std() > 0.5
    np.testing.assert_allclose(actual, expected, rtol=0, atol=TOLERANCE * expected.std())


@pytest.fixture(scope="module")
def written(tmp_path_factory, random_tensors, specs_of):
    """Folders that we wrote, by number of shards, and the reference's logits of each."""
    root = tmp_path_factory.mktemp("meta")
    tensors = random_tensors(CONFIG)
    for num_shards in (1, 2, 8, 16):
        sink = MetaSink(
            root / str(num_shards), CONFIG, specs_of(tensors), Assets(), num_shards=num_shards
        )
        for name, values in tensors.items():
            sink.write(name, values)
        sink.finish()
    jobs = {
        n: {"do": "read", "folder": root / str(n), "logits": root / f"logits{n}.npy"}
        for n in (1, 2, 8, 16)
    }
    run_reference(root, [jobs[1], jobs[8], jobs[16]], 1)
    run_reference(root, [jobs[2]], 2)
    return root


@pytest.mark.parametrize("num_shards", [1, 2, 8, 16])
def test_reference_reads_what_we_wrote(written, num_shards):
    expected = np.load(written / f"logits{num_shards}.npy")
    assert_same_logits(our_logits(written / str(num_shards)), expected)


def test_positions_make_the_comparison_sensitive_to_scaling(written):
    factor_32 = dataclasses.replace(CONFIG.rope_scaling, factor=32.0)
    expected = np.load(written / "logits1.npy")
    changed = our_logits(written / "1", rope_scaling=factor_32)
    assert np.abs(changed - expected).max() > 100 * TOLERANCE * expected.std()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Reference networks in files of plain `torch.save` and their logits: one in 1 file, and one in
    2, 8 and 16."""
    root = tmp_path_factory.mktemp("reference")
    for num_shards, kv_heads in (1, 8), (2, 8), (8, 8), (16, 16):
        folder = root / str(num_shards)
        folder.mkdir()
        fields = params_from_config(CONFIG, stored_kv_heads=kv_heads)
        (folder / "params.json").write_text(json.dumps(fields))
    two, eight, sixteen = root / "2", root / "8", root / "16"
    jobs = [
        {"do": "write", "folder": two, "logits": root / "logits.npy"},
        {"do": "split", "folder": two, "into": eight, "times": 4, "kv_copies": 1},
        {"do": "split", "folder": eight, "into": sixteen, "times": 2, "kv_copies": 2},
    ]
    run_reference(root, jobs, 2)
    whole = {"do": "write", "folder": root / "1", "logits": root / "logits1.npy"}
    run_reference(root, [whole], 1)
    return root


@pytest.mark.parametrize("num_shards", [1, 2, 8, 16])
def test_we_read_what_the_reference_saved(saved, num_shards):
    assert MetaSource(saved / str(num_shards)).config == CONFIG
    expected = np.load(saved / ("logits1.npy" if num_shards == 1 else "logits.npy"))
    assert_same_logits(our_logits(saved / str(num_shards)), expected)


def test_published_entry_point_builds_a_tied_model(tmp_path, random_tensors, specs_of):
    """`Llama3.build` wants bfloat16 and its tokenizer's vocabulary, and ignores our own keys."""
    import torch

    scaling = dataclasses.replace(CONFIG.rope_scaling, factor=32.0)
    config = dataclasses.replace(
        CONFIG,
        vocab_size=128_256,
        tied_embeddings=True,
        rope_scaling=scaling,
        context_length=4096,
    )
    tensors = random_tensors(config, ml_dtypes.bfloat16)
    folder = tmp_path / "checkpoint"
    sink = MetaSink(folder, config, specs_of(tensors), Assets(), num_shards=1)
    for name, values in tensors.items():
        sink.write(name, values)
    sink.finish()
    run_reference(tmp_path, [{"do": "build", "folder": folder, "state": tmp_path / "state"}], 1)
    state = torch.load(tmp_path / "state", weights_only=True)
    assert torch.equal(state["output.weight"], state["tok_embeddings.weight"])
    embedding = state["tok_embeddings.weight"].view(torch.int16).numpy()
    np.testing.assert_array_equal(embedding, tensors["embedding"].view(np.int16))
