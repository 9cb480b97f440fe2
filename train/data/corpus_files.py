"""Which files a corpus is: files, folders and patterns, in an order that does not change."""

import glob
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from llama_jax.errors import InputError

# What a file holds, by its last ending but .gz and .zst. C4 and others call JSONL .json.
_KINDS = {".jsonl": "jsonl", ".json": "jsonl", ".txt": "text", ".parquet": "parquet"}
_COMPRESSIONS = {".gz": "gz", ".zst": "zst"}
_KNOWN = ".jsonl, .json (an object a line), .txt, each also with .gz or .zst, and .parquet"


class CorpusFile(NamedTuple):
    """Attributes:
    path: as it was given, or the given folder and the way from there.
    kind: `jsonl`, `text` (the file is one document) or `parquet`.
    compression: `gz`, `zst` or "".
    num_bytes: its size on disk.
    modified: time of the last change in nanoseconds, which tells whether it is still the same.
    """

    path: str
    kind: str
    compression: str
    num_bytes: int
    modified: int


def find_files(inputs: Sequence[str]) -> list[CorpusFile]:
    """The files of a corpus, in the order of `inputs`; those of a folder or pattern by name.

    Of a folder, files and folders whose names begin with "." or "_" are left out, as Spark and
    others mark what is no data.

    Raises `InputError` if there is none, if one comes twice, or if an ending is not known.
    """
    files: list[CorpusFile] = []
    seen: dict[Path, str] = {}
    for given in inputs:
        for path in _paths(given):
            resolved = path.resolve()
            if resolved in seen:
                again = f" and again as {path}" if str(path) != seen[resolved] else ""
                raise InputError(
                    f"{seen[resolved]}: is given twice{again}; give every file once, or its "
                    "documents count double"
                )
            seen[resolved] = str(path)
            files.append(_corpus_file(path))
    if not files:
        raise InputError("give at least one input: a file, a folder or a pattern")
    return files


def _paths(given: str) -> Iterator[Path]:
    path = Path(given)
    if path.is_dir():
        found = sorted(
            file for file in path.rglob("*") if file.is_file() and _is_data(file.relative_to(path))
        )
        if not found:
            raise InputError(f"{given}: this folder holds no file; give one with {_KNOWN}")
        yield from found
    elif path.exists():
        yield path
    else:
        found = [Path(name) for name in sorted(glob.glob(given, recursive=True))]
        if not found:
            raise InputError(f"{given}: there is no such file, and none that matches it")
        yield from (file for file in found if file.is_file())


def _is_data(relative: Path) -> bool:
    return not any(part.startswith((".", "_")) for part in relative.parts)


def _corpus_file(path: Path) -> CorpusFile:
    compression = _COMPRESSIONS.get(path.suffix.lower(), "")
    ending = Path(path.stem).suffix.lower() if compression else path.suffix.lower()
    kind = _KINDS.get(ending)
    if kind is None or (kind == "parquet" and compression):
        raise InputError(
            f"{path}: no known kind of file by its ending; known are {_KNOWN}. Rename it, or give "
            "a pattern that leaves it out, such as 'FOLDER/**/*.jsonl'"
        )
    status = path.stat()
    return CorpusFile(str(path), kind, compression, status.st_size, status.st_mtime_ns)
