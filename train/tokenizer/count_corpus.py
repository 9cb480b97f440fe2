"""The words of a corpus, counted language by language, and what was read of it."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from llama_jax.checkpoints.transfer_progress import transfer_progress
from llama_jax.tokenizers.training.word_counts import WordCounts
from train.data.corpus_files import CorpusFile
from train.data.unit_files import MAX_COMPLAINTS, check_complaint
from train.tokenizer.corpus import check_not_empty
from train.tokenizer.text_blocks import text_blocks

# Characters of distinct words, of all languages together. Counts and trainer hold about 30 bytes
# for each, which makes 0.6 GB.
MAX_DISTINCT_CHARACTERS = 20_000_000


class FileRecord(NamedTuple):
    """Attributes:
    path: as it was given.
    num_bytes, sha256: of the file as it is on disk.
    """

    path: str
    num_bytes: int
    sha256: str


@dataclass(frozen=True)
class CountedLanguage:
    """Attributes:
    words: the counts.
    files: what was read.
    num_skipped: damaged records that were left out.
    complaints: of the first of them.
    """

    words: WordCounts
    files: tuple[FileRecord, ...]
    num_skipped: int
    complaints: tuple[str, ...]


def count_corpus(
    corpus: Mapping[str, Sequence[CorpusFile]],
    *,
    text_field: str,
    on_error: str,
    seed: int,
    quiet: bool,
) -> dict[str, CountedLanguage]:
    """Language -> its words.

    Args:
      corpus: language -> files.
      text_field: of JSON and Parquet.
      on_error: for damaged records: `stop` raises, `skip` counts them and leaves them out.
      seed: of the sample that is taken of a language with too many different words.
      quiet: shows no progress on stderr.

    Raises `InputError`, naming file and place, or a language without text.
    """
    total = sum(file.num_bytes for files in corpus.values() for file in files)
    with transfer_progress("counting words", total, quiet=quiet) as advance:
        counted = {}
        for language, files in corpus.items():
            words = WordCounts(max_characters=MAX_DISTINCT_CHARACTERS // len(corpus), seed=seed)
            num_skipped, complaints = 0, []
            for file in files:
                for record in text_blocks(file, text_field=text_field):
                    if record.text is not None:
                        words.add(record.text)
                    else:
                        check_complaint(record.complaint, on_error=on_error)
                        num_skipped += 1
                        complaints = [*complaints, record.complaint][:MAX_COMPLAINTS]
                    advance(record.num_bytes)
            check_not_empty(language, len(words.counts), len(files))
            records = tuple(map(_record, files))
            counted[language] = CountedLanguage(words, records, num_skipped, tuple(complaints))
    return counted


def _record(file: CorpusFile) -> FileRecord:
    with open(file.path, "rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    return FileRecord(file.path, file.num_bytes, digest)
