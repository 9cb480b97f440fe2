"""Small runs for tests that train in processes of their own, and the folder that they need.

`llama-jax train small_runs.py:two_stages`, in a folder that `write_data` has filled.
"""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from configs.shakespeare import write_byte_tokenizer
from llama_jax.config import ModelConfig
from llama_jax.tokenizers import load_tokenizer
from llama_jax.tokenizers.tokenizer_hash import tokenizer_hash
from sharding.mesh import MeshShape
from train.config import (
    BatchStep,
    CheckpointConfig,
    EvaluationSet,
    RunConfig,
    Source,
    StageConfig,
)
from train.data.shard_writer import write_rows
from train.schedules import Linear, WarmupCosine

ROW_LENGTH = 32
MODEL = ModelConfig(
    vocab_size=264,
    num_layers=2,
    model_dim=32,
    num_heads=4,
    num_kv_heads=4,
    head_dim=8,
    feed_forward_dim=64,
    norm_eps=1e-5,
    rope_theta=10_000.0,
    rope_scaling=None,
    context_length=ROW_LENGTH,
    tied_embeddings=False,
)


def write_data(folder: Path, *, row_length: int = ROW_LENGTH) -> None:
    """A tokenizer and three data sets, of documents in which a byte follows from the one before."""
    write_byte_tokenizer(folder / "tokenizer")
    sha256 = tokenizer_hash(load_tokenizer(folder / "tokenizer"))
    rng = np.random.default_rng(0)
    for name, num_documents in {"first": 60, "second": 30, "held_out": 8}.items():
        documents = []
        for length in rng.integers(5, 60, num_documents):
            text = (rng.integers(256) + rng.integers(1, 4) * np.arange(length)) % 256
            documents.append([256, *text.tolist(), 257])
        write_rows(
            folder / name,
            documents,
            row_length=row_length,
            vocab_size=258,
            tokenizer_sha256=sha256,
            bos_id=256,
            eos_id=257,
        )


def two_stages() -> RunConfig:
    """Twelve steps of two micro-batches, of which the last six have twice the rows; then six, whose
    last two checkpoints are averaged."""
    tokens = 8 * ROW_LENGTH
    mixture = (Source("first", "first", 2.0), Source("second", "second", 1.0))
    first = StageConfig(
        name="first",
        num_tokens=6 * tokens + 6 * 2 * tokens,
        row_length=ROW_LENGTH,
        mixture=mixture,
        batch=(BatchStep(0, 8, micro_batches=2), BatchStep(6 * tokens, 16, micro_batches=2)),
        learning_rate=WarmupCosine(peak=1e-2, end=1e-3, warmup_steps=3, decay_steps=12),
    )
    second = dataclasses.replace(
        first,
        name="second",
        num_tokens=6 * 2 * tokens,
        batch=(BatchStep(0, 16),),
        learning_rate=Linear(1e-3, 0.0),
        average_last=2,
    )
    return RunConfig(
        output="run",
        model=MODEL,
        tokenizer="tokenizer",
        stages=(first, second),
        checkpoint=CheckpointConfig(every_steps=2, keep=2, best_set="held_out"),
        mesh=MeshShape(fsdp=-1),
        compute_dtype="float32",
        remat="none",
        vocab_chunk=100,
        evaluations=(EvaluationSet("held_out", "held_out", num_rows=6, batch_rows=8),),
        evaluate_every_steps=4,
    )


def one_stage() -> RunConfig:
    """The first of the two, without micro-batches and evaluations."""
    run = two_stages()
    batch = tuple(dataclasses.replace(step, micro_batches=1) for step in run.stages[0].batch)
    stage = dataclasses.replace(run.stages[0], batch=batch)
    checkpoint = dataclasses.replace(run.checkpoint, best_set=None)
    return dataclasses.replace(
        run, stages=(stage,), checkpoint=checkpoint, evaluations=(), evaluate_every_steps=0
    )


def start(
    folder: Path, name: str, *options: str, devices: int, file: str = __file__
) -> subprocess.Popen:
    """`llama-jax train` of the run `name` of `file` in `folder`, with so many devices.

    Compiled programs are kept in `folder`, so that a process that goes on does not compile again.
    """
    command = [sys.executable, "-m", "llama_jax", "train", f"{Path(file).resolve()}:{name}"]
    environment = {
        # The last of a flag counts.
        "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    return subprocess.Popen(
        [*command, *options, "--quiet"],
        cwd=folder,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen, code: int = 0) -> str:
    """Standard error of a process that ends by itself with `code`."""
    try:
        _, errors = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == code, errors
    return errors
