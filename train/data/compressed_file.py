"""Reading a corpus file that may be compressed; damage to the whole of it names it."""

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

from llama_jax.errors import InputError
from train.data.corpus_files import CorpusFile
from train.data.zstd_file import ZstdFile


def decompressed(raw: BinaryIO, file: CorpusFile) -> Any:
    """A binary file of the content of `raw`, which is `file`, opened."""
    if file.compression and not file.num_bytes:
        raise EOFError("the file is empty")  # gzip would take it for an empty text
    if file.compression == "gz":
        return gzip.GzipFile(fileobj=raw)
    return ZstdFile(raw) if file.compression == "zst" else raw


@contextmanager
def damage_named(file: CorpusFile) -> Iterator[None]:
    """Turns what decompressors raise into an `InputError` that names the file."""
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{file.path}: damaged or cut off ({error}); fetch it again") from error
