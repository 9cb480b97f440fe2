"""What the commands that prepare examples say at their end."""

import sys
from collections.abc import Sequence

from train.data.examples.prepare_examples import said_of_dropped
from train.data.manifest import Manifest


def print_report(output: str, manifest: Manifest, complaints: Sequence[str]) -> None:
    """Counts on stdout; on stderr, what was wrong with the first lines that were left out."""
    examples = manifest.examples
    if examples.kind == "groups":
        share = f"up to {examples.slots} answers a row"
    else:
        share = f"{examples.num_targets / manifest.num_tokens:.1%} of them with loss"
    if examples.kind == "pairs":
        share += f", up to {examples.slots} pairs a row"
    print(
        f"{output}: {manifest.num_documents:,} {examples.kind}, {manifest.num_tokens:,} tokens, "
        f"{share}; {manifest.num_rows:,} rows of {manifest.row_length:,}, "
        f"{examples.fill_rate:.1%} full, in {len(manifest.shards)} shards; chat format "
        f"{examples.chat_format}; {said_of_dropped(examples.dropped)}"
    )
    for complaint in complaints:
        print(f"left out: {complaint}", file=sys.stderr)
