"""`llama-jax quantize`: a checkpoint's weights in few bits, as one of our folders.

The work is `convert`'s: streamed a tensor at a time, read back and compared, there as a whole or
not at all.
"""

from collections.abc import Mapping
from pathlib import Path

import ml_dtypes
import numpy as np
import tyro

from llama_jax.checkpoints.block_calibration import ROW_TOKENS
from llama_jax.checkpoints.convert import convert
from llama_jax.checkpoints.dtypes import DtypeName, dtype_named
from llama_jax.checkpoints.formats import open_source
from llama_jax.checkpoints.host_only import stay_on_host
from llama_jax.checkpoints.huggingface_repo import resolve_source
from llama_jax.checkpoints.interface import TensorSource
from llama_jax.checkpoints.quantized_source import QuantizedSource, bytes_by_part
from llama_jax.config import PUBLISHED_MODELS, ModelConfig
from llama_jax.costs import weight_bytes, weight_parts
from llama_jax.errors import InputError
from llama_jax.quantization.quantized_tensor import WeightFormat
from llama_jax.quantization.recipes import RECIPES, RecipeName, recipe_named

CALIBRATION_ROWS = 16


def quantize_command(
    source: tyro.conf.Positional[str],
    destination: tyro.conf.Positional[Path | None] = None,
    *,
    recipe: RecipeName,
    dtype: DtypeName | None = None,
    calibration: Path | None = None,
    calibration_rows: int | None = None,
    dry_run: bool = False,
    verify: bool = True,
    overwrite: bool = False,
    quiet: bool = False,
) -> None:
    """Writes a checkpoint with quantised weights, for generate, chat and compare.

    fp8 is Meta's recipe for 405B: feed-forward weights but those of the first and the last layer, a
    scale an output channel, activations quantised as they come. int8 takes the seven products of
    every block, a scale an output channel. int4 has the feed-forward in 4 bits, with a scale for
    every 128 inputs, and the attention in 8. int8_int4 has only gate and up in 4 bits: the mix with
    which 70B fits into 64 GB.

    Example: llama-jax quantize llama-8b llama-8b-int4 --recipe int4 --calibration book.txt

    Args:
      source: a checkpoint of any format; with --dry-run also the name of a published model, such as
        llama31_405b.
      destination: folder to be created.
      recipe: what is quantised, and how.
      dtype: of everything else; as stored by default.
      calibration: a plain text file like what the model will read, by which int4 is rounded
        (GPTQ). It runs through the model, which takes a while, and loses several times less.
      calibration_rows: how many rows of 512 tokens of it are used, 16 if not given.
      dry_run: only say how many bytes it would be.
      verify: read everything back and compare.
      overwrite: replace a checkpoint at the destination, once the new one is whole.
      quiet: print notes and errors only.
    """
    stay_on_host()
    _refuse_idle_calibration(recipe, calibration, calibration_rows)
    if dry_run:
        if destination is not None:
            raise InputError(f"--dry-run writes nothing: leave out {destination}")
        _dry_run(source, recipe, dtype)
        return
    if destination is None:
        raise InputError("give the folder to be created as well, or --dry-run for sizes only")
    opened = open_source(resolve_source(source))
    tokens = None
    if calibration is not None:
        num_rows = CALIBRATION_ROWS if calibration_rows is None else calibration_rows
        tokens = read_calibration(opened, calibration, num_rows)
    quantized = QuantizedSource(
        opened,
        recipe_named(recipe),
        dtype=None if dtype is None else dtype_named(dtype),
        calibration_tokens=tokens,
    )
    done = convert(
        quantized, destination, to="orbax", verify=verify, overwrite=overwrite, quiet=quiet
    )
    if not quiet:
        print_sizes(bytes_by_part(opened.tensors), bytes_by_part(quantized.tensors))
        print(f"{destination}: {recipe}, {done}{', verified' if verify else ''}")


def read_calibration(source: TensorSource, path: Path, num_rows: int) -> np.ndarray:
    """The first `num_rows` rows of `ROW_TOKENS` tokens of a text, int32 `[R, T]`.

    Raises `InputError` if the text is shorter, not UTF-8, or the model has no tokenizer.
    """
    from llama_jax.checkpoints.source_tokenizer import source_tokenizer

    if num_rows < 1:
        raise InputError(f"--calibration-rows: {num_rows} is not a number of rows; give 1 or more")
    if path.suffix in (".json", ".jsonl", ".parquet"):
        raise InputError(f"{path}: calibration takes plain text; write the texts of it to a .txt")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text ({error.reason})") from error
    length = min(ROW_TOKENS, source.config.context_length)
    tokens = source_tokenizer(source).encode(text)[: num_rows * length]
    if len(tokens) < num_rows * length:
        fewer = len(tokens) // length
        raise InputError(
            f"{path}: has {len(tokens):,} tokens, and {num_rows} times {length} are needed; give a "
            f"longer text{f' or --calibration-rows {fewer}' if fewer else ''}"
        )
    return np.array(tokens, np.int32).reshape(num_rows, length)


def _refuse_idle_calibration(recipe: RecipeName, text: Path | None, num_rows: int | None) -> None:
    if text is None and num_rows is not None:
        raise InputError("--calibration-rows: of which text? give --calibration as well")
    if text is not None and WeightFormat.INT4 not in recipe_named(recipe).formats.values():
        rounded = [r.name for r in RECIPES.values() if WeightFormat.INT4 in r.formats.values()]
        raise InputError(
            f"--calibration: {recipe} rounds nothing by a text, only {' and '.join(rounded)} do; "
            "leave it out"
        )


def print_sizes(before: Mapping[str, int], after: Mapping[str, int]) -> None:
    """A line for each part and one for all."""
    for part in (*before, None):
        old, new = (
            sum(sizes.values()) if part is None else sizes[part] for sizes in (before, after)
        )
        print(f"{part or 'all':<12} {old:>19,} -> {new:>19,} bytes ({new / old:.1%})")


def _dry_run(source: str, recipe: RecipeName, dtype: DtypeName | None) -> None:
    if source in PUBLISHED_MODELS:
        config = PUBLISHED_MODELS[source]
        before = weight_parts(config, np.dtype(ml_dtypes.bfloat16))
        kept = np.dtype(ml_dtypes.bfloat16) if dtype is None else dtype_named(dtype)
        after = weight_parts(config, kept, recipe)
    else:
        if "/" not in source and not Path(source).exists():
            raise InputError(
                f"{source}: no such file or folder, and no published model; those are "
                f"{', '.join(PUBLISHED_MODELS)}"
            )
        opened = open_source(resolve_source(source))
        config, before = opened.config, bytes_by_part(opened.tensors)
        kept = None if dtype is None else dtype_named(dtype)
        after = bytes_by_part(QuantizedSource(opened, recipe_named(recipe), dtype=kept).tensors)
    print_sizes(before, after)
    print(_totals(source, recipe, config, sum(after.values())))


def _totals(source: str, recipe: str, config: ModelConfig, num_bytes: int) -> str:
    everything = weight_bytes(config, np.dtype(np.int8))
    return (
        f"{source} as {recipe}: {num_bytes / 1e9:,.1f} GB ({num_bytes / 2**30:,.1f} GiB); with a "
        f"byte for every weight {everything / 1e9:,.1f} GB ({everything / 2**30:,.1f} GiB)"
    )
