"""The rows of a prepared folder, by number.

Shards are ArrayRecord files with one record a group, so that any row is one read. They are opened
when first read, and the least recently read is closed again: a corpus can have more shards than a
process may have open files.
"""

import bisect
import functools
import itertools
from pathlib import Path
from typing import Any

import numpy as np

from llama_jax.errors import InputError
from train.data.examples.example_record import decode_example
from train.data.examples.example_row import ExampleRow, example_row
from train.data.manifest import PREPARE_COMMANDS, Shard, read_manifest
from train.data.reference_log_probs import ReferencedRow, ReferenceLogProbs
from train.data.row import Row, decode_row

_MAX_OPEN_SHARDS = 256


class PackedRows:
    """A sequence of `Row`s, or of one class of `ExampleRow`s; reading is safe from several threads
    at once.

    Attributes:
      path: the folder.
      manifest: what is in it.
      slots: pairs or answers that every row has static room for: those of the manifest, or more
        where other data sets of a mixture need more.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        row_length: int | None = None,
        tokenizer_sha256: str | None = None,
        reference_sha256: str | None = None,
    ) -> None:
        """Args:
          path: folder that a command of `llama-jax data` wrote.
          row_length, tokenizer_sha256: what the data must have been prepared with; None takes any.
          reference_sha256: of the model whose log-probabilities the rows are to have
            (reference_log_probs.py); None for none.

        Raises `InputError` if it was not, if a shard is missing or has another size, or if there
        are no log-probabilities of the model.
        """
        self.path = Path(path)
        self.manifest = manifest = read_manifest(path)
        self.slots = manifest.slots
        if row_length is not None and row_length != manifest.row_length:
            raise InputError(
                f"{path}: has rows of {manifest.row_length} tokens, not of row_length {row_length};"
                f" {self._prepare_again(f'--row-length {row_length}')}"
            )
        if tokenizer_sha256 is not None and tokenizer_sha256 != manifest.tokenizer_sha256:
            raise InputError(
                f"{path}: was prepared with the tokenizer {manifest.tokenizer_sha256[:12]}..., not "
                f"with {tokenizer_sha256[:12]}...; name the tokenizer it was prepared with, or "
                + self._prepare_again(f"--row-length {manifest.row_length}")
            )
        for shard in manifest.shards:
            file = self.path / shard.name
            if not file.is_file():
                raise InputError(f"{file}: this shard is missing; copy the folder again")
            if file.stat().st_size != shard.num_bytes:
                raise InputError(
                    f"{file}: has {file.stat().st_size} bytes where the manifest says "
                    f"{shard.num_bytes}; copy the folder again"
                )
        counts = (shard.num_rows for shard in manifest.shards)
        self._first_rows = list(itertools.accumulate(counts, initial=0))
        self._open = functools.lru_cache(_MAX_OPEN_SHARDS)(self._open_shard)
        self._reference: ReferenceLogProbs | None = None
        if reference_sha256 is not None:
            self._reference = ReferenceLogProbs(self.path, model_sha256=reference_sha256)

    def __len__(self) -> int:
        return self.manifest.num_rows

    def __getitem__(self, index: int) -> Row | ExampleRow | ReferencedRow:
        """Row `index`. Raises `InputError`, naming shard and row, if its record is damaged."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        number = bisect.bisect_right(self._first_rows, index) - 1
        shard = self.manifest.shards[number]
        row = index - self._first_rows[number]
        try:
            decoded = self._decoded(self._open(shard).read([row])[0])
        except (RuntimeError, ValueError) as error:  # array_record raises only RuntimeError
            raise InputError(
                f"{self.path / shard.name}: row {row} is damaged ({error}); copy the shard again, "
                "or prepare the data again"
            ) from error
        if self._reference is None:
            return decoded
        values = self._reference.of_row(index)
        if self.manifest.slots:  # what is said of each pair, 0 of none
            more = self.slots - self.manifest.slots
            values = {
                name: np.pad(array, [(0, more), *[(0, 0)] * (array.ndim - 1)])
                for name, array in values.items()
            }
        return ReferencedRow(decoded, values)

    def _decoded(self, record: bytes) -> Row | ExampleRow:
        manifest = self.manifest
        if manifest.kind == "text":
            return decode_row(
                record, vocab_size=manifest.vocab_size, row_length=manifest.row_length
            )
        return example_row(
            decode_example(record, vocab_size=manifest.vocab_size),
            manifest.kind,
            row_length=manifest.row_length,
            slots=self.slots,
        )

    def _open_shard(self, shard: Shard) -> Any:
        from array_record.python.array_record_module import ArrayRecordReader

        # The options for random access: no reading ahead, no threads of its own.
        options = "readahead_buffer_size:0,max_parallelism:0"
        return ArrayRecordReader(str(self.path / shard.name), options)

    def _prepare_again(self, options: str) -> str:
        return (
            f"prepare it again: llama-jax {PREPARE_COMMANDS[self.manifest.kind]} INPUT --tokenizer "
            f"TOKENIZER {options} "
            f"--output {self.path} --overwrite"
        )
