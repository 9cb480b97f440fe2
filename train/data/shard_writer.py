"""Writing rows: one shard, and a whole small data set from tokens that are there already."""

import hashlib
import itertools
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from llama_jax.errors import InputError
from llama_jax.json_file import write_json
from llama_jax.whole_file import publish, temporary_name
from train.data.manifest import MANIFEST_FILE, Manifest, Shard
from train.data.packing import PackedTokens, pack
from train.data.row import encode_row

# One record a group makes any row one read; zstd takes a 32-bit token to less than half.
_WRITER_OPTIONS = "group_size:1,zstd:3"


def shard_name(number: int) -> str:
    """File name of shard `number`."""
    return f"rows-{number:06d}.arrayrecord"


def is_shard_name(name: str) -> bool:
    """Whether a file of a data set is a shard."""
    return re.fullmatch(r"rows-\d{6,}\.arrayrecord", name) is not None


def write_shard(path: Path, rows: Iterable[PackedTokens], *, vocab_size: int) -> Shard:
    """Writes a shard of text rows, as `write_records` does."""
    return write_records(path, (encode_row(row, vocab_size=vocab_size) for row in rows))


def write_records(path: Path, records: Iterable[bytes]) -> Shard:
    """Writes an ArrayRecord file, which appears under its name only when it is whole.

    Raises `InputError` if it cannot be written, for example because the disk is full.
    """
    from array_record.python.array_record_module import ArrayRecordWriter

    temporary = temporary_name(path)
    num_rows = 0
    try:
        writer = ArrayRecordWriter(str(temporary), _WRITER_OPTIONS)
        for record in records:
            writer.write(record)
            num_rows += 1
        writer.close()
    except RuntimeError as error:  # the only one that array_record raises
        temporary.unlink(missing_ok=True)
        reason = str(error).split(";")[0]
        raise InputError(
            f"{path}: cannot be written ({reason}); free space there and run the same "
            "command again: it goes on with what is finished"
        ) from error
    publish(temporary, path)
    return describe_shard(path, num_rows)


def describe_shard(path: Path, num_rows: int) -> Shard:
    """The finished shard at `path`, which is read for its hash."""
    with open(path, "rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return Shard(path.name, num_rows, path.stat().st_size, sha256)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Writes the file that makes a folder a data set; the shards must be there."""
    write_json(folder / MANIFEST_FILE, manifest.to_json())


def write_rows(
    output: str | Path,
    documents: Iterable[Sequence[int] | np.ndarray],
    *,
    row_length: int,
    vocab_size: int,
    tokenizer_sha256: str,
    bos_id: int | None = None,
    eos_id: int | None = None,
    rows_per_shard: int = 4096,
) -> Manifest:
    """Makes a prepared folder of documents that are tokens already, BOS and EOS included.

    Raises `InputError` if `output` exists, if the documents make no row, or if a token is outside
    the vocabulary.
    """
    output = Path(output)
    if output.exists():
        raise InputError(f"{output}: exists already; name a new folder")
    output.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    try:
        counts = {"tokens": 0, "documents": 0, "empty": 0}
        rows = pack(_checked(documents, vocab_size, counts), row_length=row_length)
        shards = []
        while chunk := list(itertools.islice(rows, rows_per_shard)):
            path = folder / shard_name(len(shards))
            shards.append(write_shard(path, chunk, vocab_size=vocab_size))
        if not shards:
            raise InputError(f"{output}: the documents have {counts['tokens']} tokens, too few")
        manifest = Manifest(
            tokenizer_sha256=tokenizer_sha256,
            vocab_size=vocab_size,
            row_length=row_length,
            num_rows=sum(shard.num_rows for shard in shards),
            num_tokens=counts["tokens"],
            num_documents=counts["documents"],
            num_empty=counts["empty"],
            num_skipped=0,
            bos_id=bos_id,
            eos_id=eos_id,
            text_field="",
            on_error="stop",
            shards=tuple(shards),
            sources=(),
        )
        write_manifest(folder, manifest)
        folder.chmod(0o755)  # mkdtemp's is for the user alone
        os.rename(folder, output)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return manifest


def _checked(
    documents: Iterable[Sequence[int] | np.ndarray], vocab_size: int, counts: dict[str, int]
) -> Iterator[np.ndarray]:
    for number, document in enumerate(documents):
        tokens = np.asarray(document, np.int64)
        if len(tokens) and not (tokens.min() >= 0 and tokens.max() < vocab_size):
            raise InputError(
                f"document {number}: has a token outside the vocabulary of {vocab_size}"
            )
        counts["tokens"] += len(tokens)
        counts["documents" if len(tokens) else "empty"] += 1
        yield tokens
