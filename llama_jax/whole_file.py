"""Files that are there whole or as they were before, whenever the process or the machine stops."""

import glob
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write, which takes the place of `path` at the end, once it is on the disk; after an
    error it is gone and `path` as it was. An `OSError`, such as a full disk, names `path`."""
    temporary = temporary_name(path)
    try:
        with written(temporary, path) as file:
            yield file
        publish(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """`lines`, each with its end, in UTF-8, as a whole file; nothing if making them fails."""
    with whole_file(path) as file:
        file.writelines(f"{line}\n".encode() for line in lines)


def temporary_name(path: Path) -> Path:
    """Where what is to be `path` is written: in the same folder, under a name that nobody has."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")


@contextmanager
def written(temporary: Path, path: Path) -> Iterator[BinaryIO]:
    """`temporary` to write and to read again, gone after an error. For several files that are
    published together; an `OSError` names `path`."""
    try:
        with open(temporary, "w+b", buffering=1 << 20) as file:
            yield file
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename in (None, str(temporary)):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def publish(temporary: Path, path: Path) -> None:
    """Gives a written file its name, once its content is on the disk, and then the name too."""
    with open(temporary, "rb") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)
    sync_folder(path.parent)


def remove_leftovers(path: Path) -> None:
    """Removes what writers of `path` left that were killed; for who knows that none is at work."""
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.????????.tmp"):
        leftover.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Brings the names in `folder` to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
