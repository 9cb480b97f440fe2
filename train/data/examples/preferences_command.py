"""`llama-jax data preferences`: compared answers to packed rows for DPO or for a reward model."""

from typing import Annotated, Literal

import tyro

from llama_jax.errors import InputError
from train.data.examples.example_settings import ExampleSettings
from train.data.examples.prepare_report import prepare_and_report


def preferences_command(
    inputs: tyro.conf.Positional[tuple[str, ...]],
    *,
    use: Annotated[Literal["dpo", "reward"], tyro.conf.arg(name="for")],
    tokenizer: str,
    row_length: int,
    output: str,
    chat_format: Literal["auto", "llama31", "template"] = "auto",
    today: str | None = None,
    count_end_of_turn: bool = False,
    seed: int = 0,
    on_error: Literal["stop", "skip"] = "stop",
    ignore_fields: tuple[str, ...] = (),
    workers: int | None = None,
    overwrite: bool = False,
    quiet: bool = False,
) -> None:
    """Makes rows of compared answers: pairs for DPO, or groups for a reward model.

    Each line of a .jsonl file (also .gz, .zst) is an object: messages (the prompt), chosen and
    rejected, perhaps edited and tools. An answer is a text or an assistant message. For DPO, the
    best answer (edited, else chosen) is paired with the rejected one, each after the prompt; both
    are in one row. For a reward model, the prompt stands once, with all its answers after it in
    shuffled order. Nothing is split or cut off. Interrupted, the same command goes on.

    Example: llama-jax data preferences p.jsonl --for dpo --tokenizer llama --row-length 8192
    --output pairs

    Example: llama-jax data preferences p.jsonl --for reward --tokenizer llama --row-length 8192
    --output groups

    Args:
      inputs: .jsonl files, folders, or patterns in quotes.
      use: dpo makes pairs, reward makes groups.
      tokenizer: a checkpoint folder, whose chat template is used, or a tokenizer.json or .model.
      row_length: tokens that a row predicts; the stage that trains on it has the same.
      output: a new folder for the rows; folders above it are made too.
      chat_format: auto is the checkpoint's template, or Llama 3.1's format of Meta's own folders.
      today: the date that chat templates write into dialogs, where they do: 2024-07-26.
      count_end_of_turn: let DPO compare the tokens that end the turns too, which Llama 3 masks.
      seed: of the order of the answers of a group.
      on_error: what a line that makes no example does: end the work, or be counted and left out.
      ignore_fields: fields of a line that may be there and are not read.
      workers: processes; by default one a core.
      overwrite: replace the output, and discard unfinished work with other arguments.
      quiet: print nothing but errors.
    """
    if use == "reward" and count_end_of_turn:
        raise InputError(
            "--count-end-of-turn: is of --for dpo; a reward is read at that token in any case"
        )
    settings = ExampleSettings(
        kind="pairs" if use == "dpo" else "groups",
        tokenizer=tokenizer,
        chat_format=chat_format,
        today=today,
        row_length=row_length,
        ignored=tuple(sorted(ignore_fields)),
        count_end_of_turn=count_end_of_turn,
        seed=seed,
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
