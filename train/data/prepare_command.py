"""`llama-jax data prepare`: a text corpus to packed rows."""

import sys
from typing import Literal

import tyro

from train.data.prepare import prepare
from train.disk_space import advising_space


def prepare_command(
    inputs: tyro.conf.Positional[tuple[str, ...]],
    *,
    tokenizer: str,
    row_length: int,
    output: str,
    text_field: str = "text",
    on_error: Literal["stop", "skip"] = "stop",
    bos: str | None = None,
    eos: str | None = None,
    min_tokens: int = 0,
    max_tokens: int | None = None,
    workers: int | None = None,
    overwrite: bool = False,
    quiet: bool = False,
) -> None:
    """Tokenises a text corpus and packs it into rows to train on.

    Each line of a .jsonl (or .json) file, each row of a .parquet file and each .txt file is one
    document; all but .parquet may have .gz or .zst after it. Interrupted, the same command goes on.

    Example: llama-jax data prepare corpus/ --tokenizer llama-8b --row-length 8192 --output data/web

    Args:
      inputs: files, folders, or patterns in quotes such as 'web/**/*.jsonl.zst'.
      tokenizer: a checkpoint folder, a tokenizer.json or a tokenizer.model.
      row_length: tokens that a row predicts; the stage that trains on it has the same.
      output: a new folder for the rows; folders above it are made too.
      text_field: the JSON field or Parquet column that holds the text.
      on_error: what a damaged record does: end the work, or be counted and left out.
      bos: a special token to begin each document, or none; by default the tokenizer's BOS.
      eos: a special token to end each document, or none; by default its end-of-text token.
      min_tokens: leave out documents with fewer tokens, BOS and EOS included.
      max_tokens: leave out documents with more; by default none is too long.
      workers: processes; by default one a core.
      overwrite: replace the output, and discard unfinished work with other arguments.
      quiet: print nothing but errors.
    """
    with advising_space(output, goes_on="with what is finished"):
        manifest, complaints = prepare(
            inputs,
            tokenizer=tokenizer,
            row_length=row_length,
            output=output,
            text_field=text_field,
            on_error=on_error,
            bos=bos,
            eos=eos,
            min_tokens=min_tokens,
            max_tokens=max_tokens,
            workers=workers,
            overwrite=overwrite,
            quiet=quiet,
        )
    if quiet:
        return
    print(
        f"{output}: {manifest.num_documents:,} documents, {manifest.num_tokens:,} tokens, "
        f"{manifest.num_rows:,} rows of {manifest.row_length:,} in {len(manifest.shards)} shards; "
        f"left out: {manifest.num_empty:,} empty texts, {manifest.num_skipped:,} damaged records, "
        f"{manifest.num_other_lengths:,} of another length"
    )
    for complaint in complaints:
        print(f"left out: {complaint}", file=sys.stderr)
