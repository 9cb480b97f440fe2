"""Gates between stages, in real runs of a few steps: passed, tried again, given up or gone past."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from configs.shakespeare import write_byte_tokenizer
from llama_jax.checkpoints.formats import open_source
from llama_jax.checkpoints.huggingface_repo import resolve_source
from llama_jax.checkpoints.load import load_checkpoint
from llama_jax.config import TINY, LinearScaling
from llama_jax.errors import InputError
from llama_jax.tokenizers import load_tokenizer
from llama_jax.tokenizers.tokenizer_hash import tokenizer_hash
from sharding.mesh import make_mesh
from train.config import (
    BatchStep,
    CheckpointConfig,
    EvaluationSet,
    Gate,
    RunConfig,
    Source,
    StageConfig,
)
from train.data.shard_writer import write_rows
from train.export import set_aside_weights
from train.job import Job
from train.loop import train
from train.schedules import Linear

pytestmark = pytest.mark.usefixtures("quick_compilation")

SHORT, LONG = 192, 256
MODEL = dataclasses.replace(TINY, vocab_size=264, num_layers=1, model_dim=16, feed_forward_dim=16)


@pytest.fixture(autouse=True)
def _one_device(monkeypatch):
    """Gates do not depend on the mesh, and eight devices take long to compile for."""
    monkeypatch.setattr("train.loop.make_mesh", lambda shape: make_mesh(shape, jax.devices()[:1]))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_byte_tokenizer(folder / "tokenizer")
    sha256 = tokenizer_hash(load_tokenizer(folder / "tokenizer"))
    text = np.frombuffer(b"The quick brown fox jumps over the lazy dog. " * 400, np.uint8)
    for length in (SHORT, LONG):
        write_rows(
            folder / f"rows_{length}",
            [[256, *text.tolist(), 257]],
            row_length=length,
            vocab_size=258,
            tokenizer_sha256=sha256,
            bos_id=256,
            eos_id=257,
        )
    return folder


def make_run(data, output, **gate):
    gate = Gate(
        **{
            "short_set": "short",
            "max_loss_increase": 100.0,
            "needle_accuracy": 0.0,
            "num_needles": 3,
            "extra_tokens": 8 * LONG,
            "max_extra_rounds": 1,
            "on_failure": "stop",
            **gate,
        }
    )
    stages = tuple(
        StageConfig(
            name=f"context_{length}",
            num_tokens=2 * 8 * length,
            row_length=length,
            mixture=(Source("text", str(data / f"rows_{length}"), 1.0),),
            batch=(BatchStep(0, 8),),
            learning_rate=Linear(1e-3, 1e-4),
            rope_scaling=LinearScaling(2.0) if length == LONG else None,
            gate=gate if length == LONG else None,
        )
        for length in (SHORT, LONG)
    )
    return RunConfig(
        output=str(output),
        model=MODEL,
        tokenizer=str(data / "tokenizer"),
        stages=stages,
        checkpoint=CheckpointConfig(every_steps=100),
        compute_dtype="float32",
        remat="none",
        evaluations=(EvaluationSet("short", str(data / f"rows_{SHORT}"), 8, 8),),
    )


def lines_of(output):
    return [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]


def gates_of(output):
    return [key for line in lines_of(output) for key in line if key.startswith("gate ")]


def test_a_passed_gate_ends_the_run_and_the_stage_s_rope_is_that_of_the_weights(data, tmp_path):
    train(make_run(data, tmp_path / "run"), quiet=True)
    assert gates_of(tmp_path / "run") == ["gate pass"]
    steps = [line["step"] for line in lines_of(tmp_path / "run") if line["kind"] == "train"]
    assert steps == [1, 2, 3, 4]
    config, _ = load_checkpoint(tmp_path / "run" / "weights")
    assert config == dataclasses.replace(MODEL, rope_scaling=LinearScaling(2.0))

    # The folder of a run that came to its end stands for its final weights, until it goes on.
    run = tmp_path / "run"
    assert resolve_source(str(run)) == run / "weights"
    set_aside_weights(run, 4)
    assert resolve_source(str(run)) == run
    assert (run / "weights_000004" / "llama_jax.json").is_file()
    (run / "folder").mkdir()
    latest = open_source(run / "folder" / "..")
    assert latest.path == run / "checkpoints" / "000004"


def test_a_gate_compares_with_the_model_before_the_stage(data, tmp_path, monkeypatch):
    """Not with the same weights under the stage's RoPE, which a jump of it makes worse at once."""
    evaluated = []

    def evaluate(job, network, params, stage):
        evaluated.append(network.config.rope_scaling)
        return {"short": float(len(evaluated))}

    monkeypatch.setattr(Job, "evaluate", evaluate)
    with pytest.raises(InputError, match="short loss 4.0000, .2.0000 from 2.0000"):
        train(make_run(data, tmp_path / "run", max_loss_increase=0.0, max_extra_rounds=0))
    # The end of the first stage, what the gate compares with, the end of the second, its gate.
    before, after = MODEL.rope_scaling, LinearScaling(2.0)
    assert evaluated == [before, before, after, after]


def test_a_gate_that_is_not_passed_prolongs_the_stage_and_then_stops_the_run(
    data, tmp_path, monkeypatch
):
    exported = []
    monkeypatch.setattr("train.loop.export_weights", lambda *_: exported.append(True))
    run = make_run(data, tmp_path / "run", needle_accuracy=1.0)
    with pytest.raises(
        InputError, match="context_256: its gate is not passed: .*needles found 0.0%"
    ):
        train(run, quiet=True)
    assert gates_of(tmp_path / "run") == ["gate extra", "gate stop"]
    trained = [line for line in lines_of(tmp_path / "run") if line["kind"] == "train"]
    assert [line["step"] for line in trained] == [1, 2, 3, 4, 5]
    # Past its planned steps a stage keeps its last rate.
    assert trained[-1]["learning_rate"] == pytest.approx(1e-4)
    assert not exported

    # The same run with a gate that lets it go on: no step is done again.
    gate = dataclasses.replace(run.stages[1].gate, on_failure="continue")
    stages = (run.stages[0], dataclasses.replace(run.stages[1], gate=gate))
    train(dataclasses.replace(run, stages=stages), quiet=True)
    assert gates_of(tmp_path / "run")[-1] == "gate continue"
    assert max(line["step"] for line in lines_of(tmp_path / "run")) == 5
    assert exported


def test_a_run_that_ends_in_nothing_finite_has_no_weights(data, tmp_path, monkeypatch):
    monkeypatch.setattr(Job, "evaluate", lambda *_: {"short": float("nan")})
    with pytest.raises(InputError, match="context_192: at its end the short loss is nan"):
        train(make_run(data, tmp_path / "run"), quiet=True)
    assert not (tmp_path / "run" / "weights").exists()
