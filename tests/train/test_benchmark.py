"""The benchmark on a tiny model: both sides do the same work, and the report adds up."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import llama_jax.machine_roofline
from llama_jax.__main__ import main
from llama_jax.checkpoints.quantize import quantize_command
from llama_jax.checkpoints.save import save_checkpoint
from llama_jax.config import LLAMA_31_8B, TINY
from llama_jax.costs import num_parameters
from llama_jax.errors import InputError
from llama_jax.model import init_params
from train.benchmark import bench_train
from train.benchmark_peer import measure_peer
from train.benchmark_workload import SIZES, bare_run, override, run_of
from train.data.row import Row
from train.measure_training import measure_training

pytestmark = pytest.mark.usefixtures("quick_compilation")

ROOT = Path(__file__).parents[2]


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(llama_jax.machine_roofline, "_SECONDS", 0.01)
    monkeypatch.setattr(llama_jax.machine_roofline, "_MATMUL_SIZE", 64)


def test_both_sides_do_the_same_work_on_packed_rows(tmp_path):
    params = init_params(TINY, jax.random.key(0))
    save_checkpoint(tmp_path / "hf", TINY, params, format="hf")
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, TINY.vocab_size, (2, 8, 33), np.int32)
    segments = np.sort(rng.integers(1, 4, tokens.shape, np.int32), axis=-1)
    batch = Row(tokens, segments).arrays()
    run = override(bare_run(TINY), compute_dtype="float32")
    devices = jax.devices()[:1]
    ours = measure_training(run, batch, num_steps=2, params=params, devices=devices)
    # Sums of 500 terms in another order; bfloat16 rounds each activation to 8 bits.
    for compute_dtype, tolerance in (("float32", 1e-5), ("bfloat16", 2e-3)):
        theirs = measure_peer(
            tmp_path / "hf", batch, run.optimizer,
            compute_dtype=compute_dtype, param_dtype="float32", num_steps=2,
        )  # fmt: skip
        np.testing.assert_allclose(ours["losses"], theirs["losses"], rtol=tolerance)
        assert len(ours["losses"]) == 4 and len(ours["seconds"]) == len(theirs["seconds"]) == 2
    assert ours["losses"][-1] < ours["losses"][0]
    assert ours["tokens_per_second"] == pytest.approx(2 * 8 * 32 / np.median(ours["seconds"]))
    memory, state = ours["memory_bytes"], 3 * 4 * num_parameters(TINY)
    assert state < memory["arguments"] < 1.1 * state
    assert memory["total"] < memory["arguments"] + memory["temporary"] + 0.1 * state  # donated
    # The given weights are still there.
    assert np.isfinite(np.asarray(params["embedding"])).all()


def test_the_report_adds_up(tmp_path, quick, capsys):
    output = tmp_path / "result.json"
    bench_train("tiny", rows=8, row_length=16, steps=2, dtypes=("float32",), output=output)
    result = json.loads(output.read_text())
    ours, theirs = result["rows"]
    assert (ours["side"], theirs["side"]) == ("llama-jax", "transformers")
    np.testing.assert_allclose(ours["losses"], theirs["losses"], rtol=1e-5)
    assert ours["devices"] * ours["tokens_per_second_per_device"] == ours["tokens_per_second"]
    for row in (ours, theirs):
        assert row["tokens_per_second"] == pytest.approx(8 * 16 / np.median(row["seconds"]))
        assert 0 < row["mfu_causal"] < row["mfu_full"]
    ratio = ours["tokens_per_second"] / theirs["tokens_per_second"]
    assert result["ratio_of_bests"]["float32"] == pytest.approx(ratio)
    assert {"processor", "jax", "torch", "transformers"} <= result["machine"].keys()
    assert "--rows 8 --row-length 16 --micro-batches 1" in result["command"]
    assert "times the better peer" in capsys.readouterr().out


def test_a_baseline_is_the_same_step_without_what_is_fast(tmp_path, quick, capsys, monkeypatch):
    deeper = dataclasses.replace(TINY, num_layers=3)
    monkeypatch.setitem(SIZES, "tiny", deeper)
    output = tmp_path / "result.json"
    bench_train(
        "tiny", rows=8, row_length=16, steps=2, dtypes=("bfloat16",), output=output, peer=False,
        matmul="fp8_tensorwise", attention=("chunked",), baseline=True,
    )  # fmt: skip
    result = json.loads(output.read_text())
    fast, plain = result["rows"]
    assert (fast["side"], plain["side"]) == ("llama-jax", "llama-jax, plain")
    # The same weights and batch, of which one block in three is rounded to 8 bits.
    np.testing.assert_allclose(fast["losses"], plain["losses"], rtol=1e-2)
    assert fast["losses"] != plain["losses"]
    ratio = fast["tokens_per_second"] / plain["tokens_per_second"]
    assert result["ratio_to_plain"]["bfloat16"] == pytest.approx(ratio)
    assert "--attention chunked --matmul fp8_tensorwise" in result["command"]
    assert result["command"].endswith("--no-peer --baseline")
    told = capsys.readouterr()
    assert "matmul fp8_tensorwise by emulate" in told.err and "attention: reference" in told.err
    assert "times plain attention" in told.out


def test_measuring_needs_only_what_a_step_needs():
    """A machine with an accelerator may have JAX, flax and optax, and no more."""
    code = """
import sys
class Absent:
    def find_spec(self, name, *_):
        if name.split(".")[0] in ("grain", "array_record", "tyro", "tensorboardX", "matplotlib",
                                  "torch", "transformers"):
            raise ImportError(name)
sys.meta_path.insert(0, Absent())
from llama_jax.config import TINY
from train.benchmark import measure_training, random_batch
from train.benchmark_workload import bare_run
batch = random_batch(TINY.vocab_size, rows=2, row_length=8)
print(len(measure_training(bare_run(TINY), batch, num_steps=1)["seconds"]))
"""
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={
            "JAX_PLATFORMS": "cpu",
            "PYTHONPATH": str(ROOT),
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        },
        capture_output=True,
        text=True,
    )
    assert result.stdout.strip() == "1", result.stderr


def test_a_model_has_many_names(tmp_path):
    save_checkpoint(tmp_path / "w", TINY, init_params(TINY, jax.random.key(0)), format="hf")
    assert run_of("8b")[0].model == LLAMA_31_8B
    run, path = run_of(str(tmp_path / "w"))
    assert (run.model, run.stages, path) == (TINY, (), tmp_path / "w")
    run, path = run_of("tiny_cpu")
    assert run.stages and path is None
    with pytest.raises(InputError, match="no model 'tinny'.*smollm2"):
        run_of("tinny")


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--rows", "0"], "--rows must be at least 1"),
        (["--rows", "3", "--micro-batches", "2"], "--rows 3: must be a multiple"),
        (["--rows", "3"], "3 rows of a micro-batch do not divide over mesh"),
        (["--row-length", "1000000"], "--row-length 1000000: the model takes"),
        (["--remat", "some"], "--remat some: give one of none"),
        (["--matmul", "fp8"], "matmul: must be one of bfloat16, fp8_tensorwise"),
        (["--matmul", "int8"], "matmul: int8 would quantise nothing: of 2 layers"),
        (["--attention", "flash"], "attention: must be auto alone, or of reference, chunked"),
        (["--data", "/nowhere"], "/nowhere"),
        (["--output", "/nowhere/x.json"], "/nowhere/x.json"),
    ],
)
def test_bad_arguments_are_one_line(capsys, arguments, message):
    with pytest.raises(SystemExit) as stop:
        main(["bench", "train", "tiny", "--no-peer", "--quiet", *arguments])
    error = capsys.readouterr().err
    assert stop.value.code == 2 and message in error and error.count("\n") == 1


def test_a_quantised_checkpoint_is_refused_by_name(tmp_path, capsys):
    save_checkpoint(tmp_path / "a", TINY, init_params(TINY, jax.random.key(0)), format="orbax")
    quantize_command(str(tmp_path / "a"), tmp_path / "q", recipe="int8", quiet=True)
    with pytest.raises(SystemExit) as stop:
        main(["bench", "train", str(tmp_path / "q")])
    error = capsys.readouterr().err
    assert stop.value.code == 2 and "is quantised (int8)" in error and "llama-jax convert" in error
