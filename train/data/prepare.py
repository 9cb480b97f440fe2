"""A text corpus to packed rows: tokenise in parallel, then cut into rows in parallel.

First each unit of the corpus becomes a file of tokens (tokenized_unit.py). Then it is known at
which token of the whole each shard begins, and each shard is cut out of those files by itself. So
the result depends on the documents and their order alone: not on the number of workers, nor on how
often the work was interrupted. Memory: one document and one unit's document lengths a worker. Disk:
the tokens twice, until the end.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from llama_jax.errors import InputError
from llama_jax.tokenizers import load_tokenizer, tokenizer_hash
from train.data.corpus_files import find_files
from train.data.document_boundary import document_boundary
from train.data.manifest import (
    FORMAT_VERSION,
    MANIFEST_FILE,
    Manifest,
    Shard,
    SourceFile,
    read_manifest,
)
from train.data.packing import count_rows, pack
from train.data.prepare_progress import prepare_progress
from train.data.row import token_dtype
from train.data.shard_writer import describe_shard, shard_name, write_shard
from train.data.staging import Staging, discard_leftover
from train.data.token_stream import TokenStream
from train.data.tokenized_unit import TokenizeSettings, UnitTokenizer, add_counts, finished_unit
from train.data.unit_files import make_units
from train.data.work_units import plan_units
from train.data.workers import Report, run_all

# A shard of 32-bit tokens has 256 MiB before compression.
TOKENS_PER_SHARD = 1 << 26
_SHOWN_TOKEN_BYTES = 4


def prepare(
    inputs: Sequence[str],
    *,
    tokenizer: str | Path,
    row_length: int,
    output: str | Path,
    text_field: str = "text",
    on_error: str = "stop",
    bos: str | None = None,
    eos: str | None = None,
    min_tokens: int = 0,
    max_tokens: int | None = None,
    workers: int | None = None,
    overwrite: bool = False,
    quiet: bool = True,
) -> tuple[Manifest, tuple[str, ...]]:
    """Makes the folder `output`; interrupted, and called again with the same arguments, it goes on.

    Args:
      inputs: files, folders or patterns (corpus_files.py).
      tokenizer: a file or folder that `load_tokenizer` knows.
      row_length: T, the tokens that a row predicts.
      output: appears when it is whole.
      text_field: the field of JSON objects, or the Parquet column, with the text.
      on_error: for damaged records: `stop` raises, `skip` counts them and leaves them out.
      bos, eos: see `document_boundary`.
      min_tokens, max_tokens: documents with fewer or more tokens, BOS and EOS included, are counted
        and left out.
      workers: processes; as many as there are cores by default.
      overwrite: replaces a prepared folder, and discards unfinished work of other arguments.
      quiet: shows no progress on stderr.

    Returns:
      The manifest, and what was wrong with the first records that were left out.

    Raises `InputError`, naming file, record or argument.
    """
    if row_length < 1:
        raise InputError(f"--row-length must be at least 1, not {row_length}")
    if min_tokens < 0:
        raise InputError(f"--min-tokens must be at least 0, not {min_tokens}")
    if max_tokens is not None and max_tokens < max(min_tokens, 1):
        raise InputError(
            f"--max-tokens must be at least {max(min_tokens, 1)}, not {max_tokens}: otherwise no "
            "document is left"
        )
    workers = len(os.sched_getaffinity(0)) if workers is None else workers
    if workers < 1:
        raise InputError(f"--workers must be at least 1, not {workers}")
    output = Path(output).absolute()
    files = find_files(inputs)
    loaded = load_tokenizer(tokenizer)
    boundary = document_boundary(loaded, bos=bos, eos=eos)
    units = plan_units(files)
    same = {
        "tokenizer_sha256": tokenizer_hash(loaded),
        "row_length": row_length,
        "text_field": text_field,
        "bos_id": boundary.bos_id,
        "eos_id": boundary.eos_id,
        "min_tokens": min_tokens,
        "max_tokens": max_tokens,
        "format_version": FORMAT_VERSION,
    }
    sources = tuple(SourceFile(file.path, file.num_bytes) for file in files)
    if not overwrite and (manifest := _finished(output, same, sources, on_error)):
        return manifest, ()
    arguments = {**same, "input files": files, "units": len(units)}
    with Staging(output, arguments, overwrite=overwrite) as staging:
        settings = TokenizeSettings(
            folder=str(staging.units),
            tokenizer=str(tokenizer),
            boundary=boundary,
            text_field=text_field,
            on_error=on_error,
            min_tokens=min_tokens,
            max_tokens=max_tokens,
        )
        units_counts = make_units(
            partial(UnitTokenizer, settings),
            units,
            partial(finished_unit, staging.units),
            on_error=on_error,
            workers=workers,
            quiet=quiet,
        )
        counts = add_counts(units_counts)
        if counts.num_tokens < 2:
            staging.discard()
            raise InputError(
                f"{', '.join(inputs)}: no document with a text in {len(files)} files "
                f"({counts.num_empty} empty texts, {counts.num_skipped} damaged records, "
                f"{counts.num_other_lengths} of another length)"
            )
        task = partial(
            _ShardPacker,
            str(staging.units),
            str(staging.data),
            [unit.num_tokens for unit in units_counts],
            row_length,
            loaded.vocab_size,
        )
        manifest = Manifest(
            **same,
            vocab_size=loaded.vocab_size,
            num_rows=count_rows(counts.num_tokens, row_length=row_length),
            num_tokens=counts.num_tokens,
            num_documents=counts.num_documents,
            num_empty=counts.num_empty,
            num_skipped=counts.num_skipped,
            num_other_lengths=counts.num_other_lengths,
            on_error=on_error,
            shards=_pack(task, counts.num_tokens, row_length, workers=workers, quiet=quiet),
            sources=sources,
        )
        staging.publish(manifest)
    return manifest, counts.complaints


def _finished(
    output: Path, same: dict, sources: tuple[SourceFile, ...], on_error: str
) -> Manifest | None:
    """The manifest of an output that the same arguments have made already."""
    if not (output / MANIFEST_FILE).is_file():
        return None
    manifest = read_manifest(output)
    is_same = manifest.sources == sources and manifest.on_error == on_error
    is_same &= all(getattr(manifest, name) == value for name, value in same.items())
    if is_same:
        discard_leftover(output)
    return manifest if is_same else None


@dataclass
class _ShardPacker:
    """Writes shards out of the finished units; each worker process has one."""

    units: str
    data: str
    token_counts: list[int]
    row_length: int
    vocab_size: int

    def __post_init__(self) -> None:
        self._stream = TokenStream(self.units, self.token_counts, token_dtype(self.vocab_size))

    def __call__(self, item: tuple[int, int, int], report: Report) -> Shard:
        """Shard number `item[0]`, of the rows from `item[1]` to before `item[2]`."""
        number, first_row, stop_row = item
        path = Path(self.data) / shard_name(number)
        start = first_row * self.row_length
        stop = min(stop_row * self.row_length + 1, len(self._stream))
        if path.is_file():
            shard = describe_shard(path, stop_row - first_row)
        else:
            rows = pack(self._stream.documents(start, stop), row_length=self.row_length)
            shard = write_shard(path, rows, vocab_size=self.vocab_size)
            assert shard.num_rows == stop_row - first_row, shard
        report((stop - start) * _SHOWN_TOKEN_BYTES, 0, stop - start)
        return shard


def _pack(
    make_task: Callable[[], _ShardPacker],
    num_tokens: int,
    row_length: int,
    *,
    workers: int,
    quiet: bool,
) -> tuple[Shard, ...]:
    """Makes the shards that are not finished; all of them, in order."""
    num_rows = count_rows(num_tokens, row_length=row_length)
    per_shard = max(TOKENS_PER_SHARD // row_length, 1)
    items = [
        (number, first_row, min(first_row + per_shard, num_rows))
        for number, first_row in enumerate(range(0, num_rows, per_shard))
    ]
    with prepare_progress("packing", num_tokens * _SHOWN_TOKEN_BYTES, quiet=quiet) as report:
        workers = min(workers, len(items))
        shards = list(run_all(make_task, items, workers=workers, report=report))
    return tuple(sorted(shards, key=lambda shard: shard.name))
