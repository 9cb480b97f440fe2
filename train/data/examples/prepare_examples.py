"""Dialogs or preferences to packed rows: lines to examples in parallel, then whole windows of
examples to shards in parallel.

As prepare.py does it for a corpus, with the same staging, workers and files of units: the result
depends on the lines and their order alone, and work that was interrupted goes on. Memory: a window
of examples a worker, and 24 bytes an example of one unit.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

from llama_jax.chat import chat_format_hash
from llama_jax.errors import InputError
from llama_jax.tokenizers import tokenizer_hash
from train.data.corpus_files import find_files
from train.data.examples.example_packing import plan_windows
from train.data.examples.example_row import room
from train.data.examples.example_settings import ExampleSettings
from train.data.examples.example_shards import SHOWN_TOKEN_BYTES, ExamplePacker, PackedShard
from train.data.examples.example_unit import (
    ExampleUnitMaker,
    add_example_counts,
    check_is_jsonl,
    finished_examples,
    read_sizes,
)
from train.data.manifest import (
    FORMAT_VERSION,
    MANIFEST_FILE,
    ExamplesInfo,
    Manifest,
    SourceFile,
    read_manifest,
)
from train.data.prepare_progress import prepare_progress
from train.data.staging import Staging, discard_leftover
from train.data.unit_files import make_units
from train.data.work_units import plan_units
from train.data.workers import run_all

# A shard; the more examples it has, the better they fit into its rows.
WINDOW_TOKENS = 1 << 24


def prepare_examples(
    inputs: Sequence[str],
    settings: ExampleSettings,
    *,
    output: str | Path,
    on_error: str = "stop",
    workers: int | None = None,
    overwrite: bool = False,
    quiet: bool = True,
) -> tuple[Manifest, tuple[str, ...]]:
    """Makes the folder `output`; interrupted, and called again with the same arguments, it goes on.

    Args:
      inputs: .jsonl files, folders or patterns (corpus_files.py).
      settings: what an example depends on.
      output: appears when it is whole.
      on_error: for lines that make no example: `stop` raises, `skip` counts them by reason.
      workers: processes; as many as there are cores by default.
      overwrite: replaces a prepared folder, and discards unfinished work of other arguments.
      quiet: shows no progress on stderr.

    Returns:
      The manifest, and what was wrong with the first lines that were left out.

    Raises `InputError`, naming file, line and field, or the argument.
    """
    if settings.row_length < 2:
        raise InputError(f"--row-length must be at least 2, not {settings.row_length}")
    if not 0 <= settings.seed < 2**32:
        raise InputError(f"--seed must be from 0 to {2**32 - 1}, not {settings.seed}")
    workers = len(os.sched_getaffinity(0)) if workers is None else workers
    if workers < 1:
        raise InputError(f"--workers must be at least 1, not {workers}")
    output = Path(output).absolute()
    files = find_files(inputs)
    for file in files:
        check_is_jsonl(file)
    tokenizer, chat_format = settings.load()
    units = plan_units(files)
    same = {
        "tokenizer_sha256": tokenizer_hash(tokenizer),
        "row_length": settings.row_length,
        "format_version": FORMAT_VERSION,
    }
    same_examples = {
        "kind": settings.kind,
        "chat_format": chat_format.name,
        "chat_format_sha256": chat_format_hash(chat_format),
        "today": settings.today,
        "count_end_of_turn": settings.count_end_of_turn,
        "seed": settings.seed,
        "ignored": settings.ignored,
    }
    sources = tuple(SourceFile(file.path, file.num_bytes) for file in files)
    if not overwrite and (manifest := _finished(output, same, same_examples, sources, on_error)):
        return manifest, ()
    arguments = {**same, **same_examples, "input files": files, "units": len(units)}
    with Staging(output, arguments, overwrite=overwrite) as staging:
        unit_counts = make_units(
            partial(ExampleUnitMaker, str(staging.units), settings, on_error),
            units,
            partial(finished_examples, staging.units),
            on_error=on_error,
            workers=workers,
            quiet=quiet,
        )
        counts = add_example_counts(unit_counts)
        if not counts.num_examples:
            staging.discard()
            raise InputError(
                f"{', '.join(inputs)}: no line of {len(files)} files makes an example "
                f"({said_of_dropped(counts.dropped)})"
            )
        row_room = room(settings.kind, row_length=settings.row_length)
        make_packer = partial(
            ExamplePacker,
            units=str(staging.units),
            data=str(staging.data),
            example_counts=[unit.num_examples for unit in unit_counts],
            room=row_room,
            vocab_size=tokenizer.vocab_size,
        )
        lengths = _lengths(staging.units, len(units))
        packed = _pack(make_packer, lengths, counts.num_tokens, workers=workers, quiet=quiet)
        num_rows = sum(part.shard.num_rows for part in packed)
        manifest = Manifest(
            **same,
            vocab_size=tokenizer.vocab_size,
            num_rows=num_rows,
            num_tokens=counts.num_tokens,
            num_documents=counts.num_examples,
            num_empty=0,
            num_skipped=sum(counts.dropped.values()),
            bos_id=None,
            eos_id=None,
            text_field="",
            on_error=on_error,
            shards=tuple(part.shard for part in packed),
            sources=sources,
            examples=ExamplesInfo(
                **same_examples,
                slots=max(part.slots for part in packed),
                num_targets=counts.num_targets,
                fill_rate=counts.num_tokens / (num_rows * row_room),
                dropped=counts.dropped,
            ),
        )
        staging.publish(manifest)
    return manifest, counts.complaints


def said_of_dropped(dropped: dict[str, int]) -> str:
    """What was left out, in words."""
    reasons = [f"{count:,} {reason}" for reason, count in dropped.items()]
    return f"left out: {', '.join(reasons)}" if reasons else "none was left out"


def _finished(
    output: Path, same: dict, same_examples: dict, sources: tuple[SourceFile, ...], on_error: str
) -> Manifest | None:
    """The manifest of an output that the same arguments have made already."""
    if not (output / MANIFEST_FILE).is_file():
        return None
    manifest = read_manifest(output)
    is_same = manifest.sources == sources and manifest.on_error == on_error
    is_same &= all(getattr(manifest, name) == value for name, value in same.items())
    is_same &= manifest.examples is not None and all(
        getattr(manifest.examples, name) == value for name, value in same_examples.items()
    )
    if is_same:
        discard_leftover(output)
    return manifest if is_same else None


def _pack(
    make_packer: Callable[[], ExamplePacker],
    lengths: Iterable[int],
    num_tokens: int,
    *,
    workers: int,
    quiet: bool,
) -> list[PackedShard]:
    """Makes the shards that are not finished; all of them, in order."""
    windows = plan_windows(lengths, window_tokens=WINDOW_TOKENS)
    num_bytes = num_tokens * SHOWN_TOKEN_BYTES
    with prepare_progress("packing", num_bytes, quiet=quiet) as report:
        workers = min(workers, -(-num_tokens // WINDOW_TOKENS))
        packed = list(run_all(make_packer, enumerate(windows), workers=workers, report=report))
    return sorted(packed, key=lambda part: part.shard.name)


def _lengths(folder: Path, num_units: int) -> Iterator[int]:
    """Tokens of every example, in order."""
    for number in range(num_units):
        yield from read_sizes(folder, number)[:, 0].tolist()
