"""What a prepared data set is: `manifest.json`, written last, so that a folder with it is whole."""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from llama_jax.errors import InputError
from llama_jax.json_file import read_json

MANIFEST_FILE = "manifest.json"
FORMAT_VERSION = 1

# What the rows of a data set are: `text` is a corpus (row.py), the others are examples.
RowKind = Literal["text", "dialogs", "pairs", "groups"]
# Kind -> the command that makes it.
PREPARE_COMMANDS = {
    "text": "data prepare",
    "dialogs": "data dialogs",
    "pairs": "data preferences --for dpo",
    "groups": "data preferences --for reward",
}


@dataclass(frozen=True)
class Shard:
    """One ArrayRecord file: its name in the folder, how many rows it has, its size and its
    SHA-256, by which what is computed of its rows knows them; None if another release wrote it."""

    name: str
    num_rows: int
    num_bytes: int
    sha256: str | None = None


@dataclass(frozen=True)
class SourceFile:
    """One input file: its path as it was given, and its size."""

    path: str
    num_bytes: int


@dataclass(frozen=True)
class ExamplesInfo:
    """What rows of examples have, and a corpus has not.

    Attributes:
      kind: `dialogs`, `pairs` or `groups`.
      chat_format: `llama31` or `template`.
      chat_format_sha256: `llama_jax.chat.chat_format_hash` of it.
      today: the date that it may write, or None.
      slots: pairs (P) or answers (E) that a row has static room for; of dialogs 0.
      num_targets: tokens that count when they are the target; of pairs, in the likelihood.
      fill_rate: share of the rows' room that holds tokens.
      count_end_of_turn: whether a pair compares the tokens that end the turns too.
      seed: of the order of the answers of a group.
      ignored: fields that were in lines and not read.
      dropped: reason -> lines left out for it.
    """

    kind: RowKind
    chat_format: str
    chat_format_sha256: str
    today: str | None
    slots: int
    num_targets: int
    fill_rate: float
    count_end_of_turn: bool
    seed: int
    ignored: tuple[str, ...]
    dropped: dict[str, int]


@dataclass(frozen=True)
class Manifest:
    """Attributes:
    tokenizer_sha256: `llama_jax.tokenizers.tokenizer_hash` of the tokenizer.
    vocab_size: every token id is less.
    row_length: T, the tokens that a row predicts.
    num_rows: of all shards.
    num_tokens: of all documents, with those that begin and end them; or of all examples.
    num_documents: with at least one character, and of a length that was asked for; or examples.
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
    examples: what there is to know of rows of examples; None of text.
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
    examples: ExamplesInfo | None = None
    format_version: int = FORMAT_VERSION

    @property
    def kind(self) -> RowKind:
        """What its rows are."""
        return "text" if self.examples is None else self.examples.kind

    @property
    def slots(self) -> int:
        """Pairs or answers that a row has room for."""
        return 0 if self.examples is None else self.examples.slots

    def data_hash(self) -> str:
        """SHA-256 of the rows, wherever they lie: equal if all arrays are.

        Raises `ValueError`, saying what to do, for a corpus that an earlier release prepared.
        """
        if any(shard.sha256 is None for shard in self.shards):
            raise ValueError("its manifest has no hashes of the shards; prepare it again")
        same = [self.kind, self.row_length, self.vocab_size, self.slots]
        same += [[shard.num_rows, shard.sha256] for shard in self.shards]
        return hashlib.sha256(json.dumps(same).encode()).hexdigest()

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
            f"llama-jax data prepare INPUT --tokenizer TOKENIZER --row-length N --output {folder} "
            "(or data dialogs, or data preferences)"
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
        if (examples := fields.pop("examples", None)) is not None:
            examples = ExamplesInfo(**{**examples, "ignored": tuple(examples["ignored"])})
        manifest = Manifest(**fields, shards=shards, sources=sources, examples=examples)
        is_sound = manifest.num_rows == sum(shard.num_rows for shard in shards) > 0
        is_sound &= manifest.row_length > 0 < manifest.vocab_size
        is_sound &= all(Path(shard.name).name == shard.name for shard in shards)
        is_sound &= manifest.kind in PREPARE_COMMANDS and manifest.slots >= 0
    except (KeyError, TypeError) as error:
        raise InputError(f"{path}: damaged ({error}); prepare the data again") from error
    if not is_sound:
        raise InputError(f"{path}: damaged (its numbers contradict); prepare the data again")
    return manifest
