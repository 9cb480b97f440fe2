"""`llama-jax data dialogs`: dialogs to packed rows for supervised fine-tuning."""

from typing import Literal

import tyro

from train.data.examples.example_settings import ExampleSettings
from train.data.examples.prepare_report import prepare_and_report


def dialogs_command(
    inputs: tyro.conf.Positional[tuple[str, ...]],
    *,
    tokenizer: str,
    row_length: int,
    output: str,
    chat_format: Literal["auto", "llama31", "template"] = "auto",
    today: str | None = None,
    on_error: Literal["stop", "skip"] = "stop",
    ignore_fields: tuple[str, ...] = (),
    workers: int | None = None,
    overwrite: bool = False,
    quiet: bool = False,
) -> None:
    """Makes rows of dialogs to fine-tune on: whole dialogs, loss on what the assistant says.

    Each line of a .jsonl file (also .gz, .zst) is a dialog: OpenAI's object with messages and
    perhaps tools, or ShareGPT's with conversations. Every turn of the assistant counts, with its
    tool calls and the token that ends it. No dialog is split or cut off. Interrupted, the same
    command goes on.

    Example: llama-jax data dialogs sft.jsonl --tokenizer llama-8b --row-length 8192 --output sft

    With fields that nothing reads, and lines that cannot be used: --ignore-fields source model
    --on-error skip

    Args:
      inputs: .jsonl files, folders, or patterns in quotes.
      tokenizer: a checkpoint folder, whose chat template is used, or a tokenizer.json or .model.
      row_length: tokens that a row predicts; the stage that trains on it has the same.
      output: a new folder for the rows; folders above it are made too.
      chat_format: auto is the checkpoint's template, or Llama 3.1's format of Meta's own folders.
      today: the date that chat templates write into dialogs, where they do: 2024-07-26.
      on_error: what a line that makes no dialog does: end the work, or be counted and left out.
      ignore_fields: fields of a line that may be there and are not read.
      workers: processes; by default one a core.
      overwrite: replace the output, and discard unfinished work with other arguments.
      quiet: print nothing but errors.
    """
    settings = ExampleSettings(
        kind="dialogs",
        tokenizer=tokenizer,
        chat_format=chat_format,
        today=today,
        row_length=row_length,
        ignored=tuple(sorted(ignore_fields)),
    )
    prepare_and_report(
        inputs,
        settings,
        output=output,
        on_error=on_error,
        workers=workers,
        overwrite=overwrite,
        quiet=quiet,
    )
