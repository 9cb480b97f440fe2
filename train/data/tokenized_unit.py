"""A unit of the corpus as tokens: three files, of which the last one written makes it whole.

unit-000012.tokens   the documents' tokens one after another, as in the shards
unit-000012.lengths  uint64, tokens of each document
unit-000012.json     the counts
"""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from llama_jax.errors import InputError
from llama_jax.tokenizers import load_tokenizer
from train.data.document_boundary import DocumentBoundary
from train.data.documents import Record, read_documents
from train.data.row import token_dtype
from train.data.unit_files import MAX_COMPLAINTS, UnitFiles, check_complaint, unit_path
from train.data.work_units import Unit
from train.data.workers import Report

_RECORDS_BETWEEN_REPORTS = 100


@dataclass(frozen=True)
class UnitCounts:
    """Attributes:
    num_tokens, num_documents: written.
    num_empty: texts without a character.
    num_skipped: damaged records.
    num_other_lengths: documents that are shorter or longer than asked for.
    complaints: of the first damaged records.
    """

    num_tokens: int
    num_documents: int
    num_empty: int
    num_skipped: int
    num_other_lengths: int
    complaints: tuple[str, ...]


@dataclass(frozen=True)
class TokenizeSettings:
    """What a worker needs to make units.

    Attributes:
      folder: where units are written.
      tokenizer: path of the tokenizer.
      boundary: tokens before and after each document.
      text_field: of JSON and Parquet.
      on_error: `stop` or `skip`.
      min_tokens, max_tokens: lengths of the documents to keep, with their boundary; None: any.
    """

    folder: str
    tokenizer: str
    boundary: DocumentBoundary
    text_field: str
    on_error: str
    min_tokens: int
    max_tokens: int | None

    def has_length(self, num_tokens: int) -> bool:
        """Whether a document of so many tokens is kept."""
        fits = self.max_tokens is None or num_tokens <= self.max_tokens
        return fits and num_tokens >= self.min_tokens


def finished_unit(folder: str | Path, number: int) -> UnitCounts | None:
    """The counts of a unit that is whole, or None."""
    path = unit_path(folder, number, "json")
    if not path.is_file():
        return None
    fields = json.loads(path.read_text())
    return UnitCounts(**{**fields, "complaints": tuple(fields["complaints"])})


def add_counts(units: Sequence[UnitCounts]) -> UnitCounts:
    """The counts of several units together, with the first complaints."""
    complaints = tuple(complaint for unit in units for complaint in unit.complaints)
    names = (field.name for field in dataclasses.fields(UnitCounts) if field.name != "complaints")
    return UnitCounts(
        **{name: sum(getattr(unit, name) for unit in units) for name in names},
        complaints=complaints[:MAX_COMPLAINTS],
    )


class UnitTokenizer:
    """Makes units; each worker process has one."""

    def __init__(self, settings: TokenizeSettings) -> None:
        self._settings = settings
        self._tokenizer = load_tokenizer(settings.tokenizer)
        self._dtype = token_dtype(self._tokenizer.vocab_size)

    def __call__(self, item: tuple[int, Unit], report: Report) -> tuple[int, UnitCounts]:
        """Writes unit `item[0]` out of the pieces `item[1]`; its number and counts.

        Raises `InputError` for a damaged record, unless they are to be skipped.
        """
        number, unit = item
        lengths: list[int] = []
        complaints: list[str] = []
        num_empty = num_skipped = num_other_lengths = 0
        waiting = num_bytes = num_tokens = 0
        files = UnitFiles(self._settings.folder, number)
        with files.written("tokens") as file:
            for piece in unit:
                for record in read_documents(piece, text_field=self._settings.text_field):
                    num_bytes += record.num_bytes
                    waiting += 1
                    ids, complaint = self._tokens(record, piece.file.path)
                    if complaint:
                        num_skipped += 1
                        complaints = [*complaints, complaint][:MAX_COMPLAINTS]
                        check_complaint(complaint, on_error=self._settings.on_error)
                    elif not record.text:
                        num_empty += 1
                    elif not self._settings.has_length(len(ids)):
                        num_other_lengths += 1
                    else:
                        file.write(ids.tobytes())
                        lengths.append(len(ids))
                        num_tokens += len(ids)
                    if waiting >= _RECORDS_BETWEEN_REPORTS or num_bytes >= 1 << 20:
                        report(num_bytes, waiting, num_tokens)
                        num_bytes = waiting = num_tokens = 0
        report(num_bytes, waiting, num_tokens)
        counts = UnitCounts(
            num_tokens=sum(lengths),
            num_documents=len(lengths),
            num_empty=num_empty,
            num_skipped=num_skipped,
            num_other_lengths=num_other_lengths,
            complaints=tuple(complaints),
        )
        with files.written("lengths") as file:
            file.write(np.array(lengths, "<u8").tobytes())
        with files.written("json") as file:
            file.write(json.dumps(dataclasses.asdict(counts)).encode())
        files.publish()
        return number, counts

    def _tokens(self, record: Record, path: str) -> tuple[np.ndarray, str]:
        """The document's tokens, and a complaint if it has none."""
        nothing = np.zeros(0, self._dtype)
        if not record.text:
            return nothing, record.complaint
        bos_id, eos_id = self._settings.boundary
        try:
            ids = self._tokenizer.encode(record.text)
        except InputError as error:
            return nothing, f"{path}: the text that begins {record.text[:30]!r}: {error}"
        before = [] if bos_id is None else [bos_id]
        after = [] if eos_id is None else [eos_id]
        return np.array([*before, *ids, *after], self._dtype), ""
