"""What a prepared data set is: `manifest.json`, written last, so that a folder with it is whole."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llama_jax.errors import InputError
from llama_jax.json_file import read_json

MANIFEST_FILE = "manifest.json"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class Shard:
    """One ArrayRecord file: its name in the folder, how many rows it has, its size."""

    name: str
    num_rows: int
    num_bytes: int


@dataclass(frozen=True)
class SourceFile:
    """One input file: its path as it was given, and its size."""

    path: str
    num_bytes: int


@dataclass(frozen=True)
class Manifest:
    """Attributes:
    tokenizer_sha256: `llama_jax.tokenizers.tokenizer_hash` of the tokenizer.
    vocab_size: every token id is less.
    row_length: T, the tokens that a row predicts.
    num_rows: of all shards.
    num_tokens: of all documents, with those that begin and end them.
    num_documents: with at least one character, and of a length that was asked for.
    num_empty: texts without a character, left out.
    num_skipped: damaged records, left out because `--on-error skip` said so.
    bos_id, eos_id: the tokens that begin and end every document, or None.
    text_field: the JSON field or Parquet column of the texts.
    on_error: `stop` or `skip`.
    shards: in the order of their rows.
    sources: in the order of their documents; empty if the documents came from no file.
    min_tokens, max_tokens: documents with fewer or with more tokens, those that begin and end them
      included, were left out; a max_tokens of None leaves out none.
    num_other_lengths: how many those were.
    """

    tokenizer_sha256: str
    vocab_size: int
    row_length: int
    num_rows: int
    num_tokens: int
    num_documents: int
    num_empty: int
    num_skipped: int
    bos_id: int | None
    eos_id: int | None
    text_field: str
    on_error: str
    shards: tuple[Shard, ...]
    sources: tuple[SourceFile, ...]
    min_tokens: int = 0
    max_tokens: int | None = None
    num_other_lengths: int = 0
    format_version: int = FORMAT_VERSION

    def to_json(self) -> dict[str, Any]:
        """The object in the file."""
        return dataclasses.asdict(self)


def read_manifest(folder: str | Path) -> Manifest:
    """The manifest of a prepared folder. Raises `InputError` if there is none, or a damaged one."""
    folder = Path(folder)
    path = folder / MANIFEST_FILE
    if not path.is_file():
        what = "holds no prepared data" if folder.is_dir() else "there is no such folder"
        raise InputError(
            f"{folder}: {what} (no {MANIFEST_FILE}); make it with: "
            f"llama-jax data prepare INPUT --tokenizer TOKENIZER --row-length N --output {folder}"
        )
    fields = read_json(path)
    if fields.get("format_version") != FORMAT_VERSION:
        raise InputError(
            f"{path}: has format_version {fields.get('format_version')}, this release reads "
            f"{FORMAT_VERSION}; prepare the data again"
        )
    try:
        shards = tuple(Shard(**shard) for shard in fields.pop("shards"))
        sources = tuple(SourceFile(**source) for source in fields.pop("sources"))
        manifest = Manifest(**fields, shards=shards, sources=sources)
        is_sound = manifest.num_rows == sum(shard.num_rows for shard in shards) > 0
        is_sound &= manifest.row_length > 0 < manifest.vocab_size
        is_sound &= all(Path(shard.name).name == shard.name for shard in shards)
    except (KeyError, TypeError) as error:
        raise InputError(f"{path}: damaged ({error}); prepare the data again") from error
    if not is_sound:
        raise InputError(f"{path}: damaged (its numbers contradict); prepare the data again")
    return manifest
