"""What `llama-jax bench train` measures: a model by any name, and a batch for it."""

import dataclasses
from pathlib import Path

import numpy as np

from llama_jax.config import (
    LLAMA_31_8B,
    LLAMA_31_70B,
    LLAMA_32_1B,
    LLAMA_32_3B,
    TINY,
    ModelConfig,
)
from llama_jax.errors import InputError
from train.config import CheckpointConfig, RunConfig
from train.data.row import Row

SIZES: dict[str, ModelConfig] = {
    "tiny": TINY,
    "smollm2": ModelConfig(  # HuggingFaceTB/SmolLM2-135M
        vocab_size=49_152,
        num_layers=30,
        model_dim=576,
        num_heads=9,
        num_kv_heads=3,
        head_dim=64,
        feed_forward_dim=1536,
        norm_eps=1e-5,
        rope_theta=100_000.0,
        rope_scaling=None,
        context_length=8192,
        tied_embeddings=True,
    ),
    "1b": LLAMA_32_1B,
    "3b": LLAMA_32_3B,
    "8b": LLAMA_31_8B,
    "70b": LLAMA_31_70B,
}


def run_of(name: str) -> tuple[RunConfig, Path | None]:
    """A run with the model that `name` means, and the checkpoint it is, if it is one.

    Args:
      name: one of `SIZES`; a checkpoint's folder or file; or a run as `llama-jax train` knows it.
    """
    if name in SIZES:
        return bare_run(SIZES[name]), None
    from train.run_json import CONFIG_FILE
    from train.run_source import find_run, named_runs

    path = Path(name)
    if not path.exists() and name not in named_runs() and ":" not in name:
        known = ", ".join([*SIZES, *named_runs()])
        raise InputError(f"no model {name!r}: give a checkpoint, or one of: {known}")
    # A checkpoint in Hugging Face's format has a config.json too, without stages.
    is_run = not path.exists() or '"stages"' in _text(path / CONFIG_FILE)
    if is_run:
        return find_run(name), None
    from llama_jax.checkpoints.dequantized import refuse_quantized
    from llama_jax.checkpoints.formats import open_source

    source = open_source(path)
    refuse_quantized(source, "training changes weights by less than a step of it")
    return bare_run(source.config), path


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def bare_run(model: ModelConfig) -> RunConfig:
    """A run of which only what a step needs is filled in."""
    checkpoint = CheckpointConfig(every_steps=1)
    return RunConfig(output="", model=model, tokenizer="", stages=(), checkpoint=checkpoint)


def baseline_of(run: RunConfig) -> RunConfig:
    """`run` with attention that writes all its scores to memory and products that are not
    quantised: the step without the kernels of this project."""
    return dataclasses.replace(
        run, attention=("reference",), matmul="bfloat16", matmul_implementation="auto"
    )


def override(run: RunConfig, **fields: str | tuple[str, ...] | None) -> RunConfig:
    """`run` with those fields that are not None; `moment_dtype` is the optimiser's."""
    given = {name: value for name, value in fields.items() if value is not None}
    if (moment_dtype := given.pop("moment_dtype", None)) is not None:
        given["optimizer"] = dataclasses.replace(run.optimizer, moment_dtype=moment_dtype)
    return dataclasses.replace(run, **given)


def packed_batch(
    folder: Path, *, rows: int, row_length: int, micro_batches: int
) -> dict[str, np.ndarray]:
    """The first `rows` rows of a prepared folder as a batch `[A, rows / A, row_length]`."""
    from train.data.packed_rows import PackedRows

    data = PackedRows(folder, row_length=row_length)
    if len(data) < rows:
        raise InputError(f"--data {folder}: has {len(data)} rows; give --rows {len(data)} at most")
    taken = [data[index] for index in range(rows)]
    shape = (micro_batches, rows // micro_batches, row_length + 1)
    return Row(
        np.stack([row.tokens for row in taken]).reshape(shape),
        np.stack([row.segment_ids for row in taken]).reshape(shape),
    ).arrays()
