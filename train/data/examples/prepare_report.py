"""What the commands that prepare examples do and say at their end."""

import sys
from collections.abc import Sequence

from train.data.examples.example_settings import ExampleSettings
from train.data.examples.prepare_examples import prepare_examples, said_of_dropped
from train.data.manifest import Manifest
from train.disk_space import advising_space


def prepare_and_report(
    inputs: Sequence[str],
    settings: ExampleSettings,
    *,
    output: str,
    on_error: str,
    workers: int | None,
    overwrite: bool,
    quiet: bool,
) -> None:
    """`prepare_examples`; then, unless `quiet`, counts on stdout, and on stderr what was wrong with
    the first lines that were left out."""
    with advising_space(output, goes_on="with what is finished"):
        manifest, complaints = prepare_examples(
            inputs,
            settings,
            output=output,
            on_error=on_error,
            workers=workers,
            overwrite=overwrite,
            quiet=quiet,
        )
    if quiet:
        return
    print(f"{output}: {said_of_examples(manifest)}")
    for complaint in complaints:
        print(f"left out: {complaint}", file=sys.stderr)


def said_of_examples(manifest: Manifest) -> str:
    """What a data set of examples holds, in a sentence."""
    examples = manifest.examples
    if examples.kind == "groups":
        share = f"up to {examples.slots} answers a row"
    else:
        share = f"{examples.num_targets / manifest.num_tokens:.1%} of them with loss"
    if examples.kind == "pairs":
        share += f", up to {examples.slots} pairs a row"
    return (
        f"{manifest.num_documents:,} {examples.kind}, {manifest.num_tokens:,} tokens, {share}; "
        f"{manifest.num_rows:,} rows of {manifest.row_length:,}, {examples.fill_rate:.1%} full, in "
        f"{len(manifest.shards)} shards; chat format {examples.chat_format}; "
        f"{said_of_dropped(examples.dropped)}"
    )
