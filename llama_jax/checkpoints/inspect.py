"""`llama-jax inspect`: what a checkpoint is, from its headers alone."""

import json as json_format
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from llama_jax.checkpoints.formats import open_source
from llama_jax.checkpoints.huggingface_repo import resolve_source
from llama_jax.checkpoints.interface import (
    Assets,
    TensorSource,
    quantized_names,
    scales_name,
)
from llama_jax.errors import InputError


def inspect_command(
    path: tyro.conf.Positional[Path],
    *,
    tensors: bool = False,
    json: bool = False,
) -> None:
    """Shows a checkpoint's format, config, size, dtypes, tokenizer and generation defaults.

    Reads headers only, and so checks that the checkpoint is complete and of one piece.

    Example: llama-jax inspect llama-8b --tensors

    Args:
      path: a checkpoint folder, a .gguf file, or a Hugging Face repository id.
      tensors: list every tensor.
      json: print JSON.
    """
    path = resolve_source(str(path))
    description = describe(open_source(path), path)
    if not tensors:
        del description["tensors"]
    if json:
        print(json_format.dumps(description, indent=2))
    else:
        _print(description)


def describe(source: TensorSource, path: Path) -> dict[str, Any]:
    """JSON-ready facts about an opened checkpoint."""
    assets, tokenizer = _describe_text_side(source)
    scales = {scales_name(name) for name in quantized_names(source.tensors)}
    sizes = [
        int(np.prod(spec.shape, dtype=np.int64))
        for name, spec in source.tensors.items()
        if name not in scales
    ]
    return {
        "path": str(path),
        "format": source.format,
        "config": source.config.to_dict(),
        "parameters": sum(sizes),
        "bytes": sum(spec.num_bytes for spec in source.tensors.values()),
        "dtypes": dict(Counter(spec.dtype.name for spec in source.tensors.values())),
        "quantized": dict(
            Counter(str(spec.format) for spec in source.tensors.values() if spec.format)
        ),
        "tokenizer": tokenizer,
        "generation": dict(assets.generation),
        "files": sorted(assets.files),
        "tensors": {
            name: {"shape": list(spec.shape), "dtype": spec.dtype.name}
            for name, spec in source.tensors.items()
        },
    }


def _describe_text_side(source: TensorSource) -> tuple[Assets, dict[str, Any]]:
    """The assets, and what the tokenizer is or why it cannot be used. A GGUF file's assets are made
    from its tokenizer, so without the one there are none of the other."""
    from llama_jax.checkpoints.source_tokenizer import source_tokenizer

    assets = Assets()
    try:
        assets = source.assets
        tokenizer = source_tokenizer(source)
    except InputError as error:
        return assets, {"error": str(error)}
    return assets, {
        "class": type(tokenizer).__name__,
        "vocab_size": tokenizer.vocab_size,
        "bos_id": tokenizer.bos_id,
        "eos_ids": sorted(tokenizer.eos_ids),
    }


def _print(description: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    table.add_row("format", description["format"])
    for name, value in description["config"].items():
        table.add_row(name, _short(value))
    table.add_row("parameters", f"{description['parameters']:,}")
    table.add_row("bytes", f"{description['bytes']:,}")
    for title in ("dtypes", "quantized", "tokenizer", "generation"):
        table.add_row(title, _short(description[title]) or "none")
    table.add_row("files", ", ".join(description["files"]) or "none")
    console = Console(soft_wrap=False)
    console.print(table)
    if "tensors" in description:
        listing = Table("tensor", "shape", "dtype", box=None, pad_edge=False)
        for name, spec in description["tensors"].items():
            listing.add_row(name, " ".join(map(str, spec["shape"])), spec["dtype"])
        console.print(listing)


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {item}" for name, item in value.items())
    return str(value)
