"""Writing a folder so that it is either whole or not there.

Everything goes into `NAME.incomplete` beside the destination, is brought to the disk, and is
renamed at the end. A run that fails removes it; one that was killed leaves it, and the next run
starts anew, because nothing says that the source and the options are still the same. A folder that
is replaced is called `NAME.replaced` between two renames; one that was killed there is put back by
the next run. `NAME.lock` keeps two runs from writing to one destination; the kernel releases it
when its process dies.
"""

import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from llama_jax.checkpoints.destination import check_destination
from llama_jax.errors import InputError


@contextmanager
def staged_folder(
    destination: Path,
    *,
    num_bytes: int,
    replace: bool = False,
    say: Callable[[str], None] = print,
) -> Iterator[Path]:
    """A new folder to write into, which becomes `destination` if the block succeeds.

    Args:
      destination: may exist only as an empty folder, or, if `replace`, as a checkpoint.
      num_bytes: about how much will be written.
      replace: whether a checkpoint there may be replaced, once the new folder is whole.
      say: told when the leftover of an interrupted run is removed or put back.

    Raises `InputError`, before anything is written, if the destination is taken, another process is
    writing to it, or its disk has too little room; `OSError` with a file name for a disk that is
    full after all.
    """
    destination = destination.absolute()
    check_destination(destination, replace=replace)
    destination.parent.mkdir(parents=True, exist_ok=True)
    with _lock(destination):
        staging = destination.with_name(destination.name + ".incomplete")
        _clear_leftovers(staging, destination, say)
        check_destination(destination, replace=replace)
        free = shutil.disk_usage(destination.parent).free
        if num_bytes > free:
            raise InputError(
                f"{destination}: needs {num_bytes:,} bytes and its disk has {free:,} free; make "
                "room or choose another place"
            )
        staging.mkdir()
        try:
            yield staging
            _bring_to_disk(staging)
            check_destination(destination, replace=replace)
            _take_place(staging, destination)
        except BaseException as error:
            _remove(staging)
            if isinstance(error, OSError) and error.errno is not None and error.filename is None:
                raise OSError(error.errno, error.strerror, str(destination)) from error
            raise


def _take_place(staging: Path, destination: Path) -> None:
    """Renames `staging` to `destination`. What is there stands aside meanwhile: it is deleted when
    the new folder is in its place, or comes back."""
    replaced = _replaced(destination)
    try:
        if destination.exists():
            os.rename(destination, replaced)
        os.rename(staging, destination)
    except BaseException:
        if replaced.exists() and not destination.exists():
            os.rename(replaced, destination)
        raise
    _sync(destination.parent)
    if replaced.exists():
        shutil.rmtree(replaced)


def _clear_leftovers(staging: Path, destination: Path, say: Callable[[str], None]) -> None:
    """Undoes what a run that was killed had begun."""
    replaced = _replaced(destination)
    if replaced.exists() and not destination.exists():
        os.rename(replaced, destination)
        say(f"putting {destination} back, which an interrupted run was about to replace")
    for leftover in (staging, replaced):
        if leftover.exists():
            say(f"removing {leftover}, left by an interrupted run")
            shutil.rmtree(leftover)


def _replaced(destination: Path) -> Path:
    return destination.with_name(destination.name + ".replaced")


def _remove(folder: Path) -> None:
    """Removes a folder that threads of a failed writer may still be writing into: one that makes it
    again is waited for."""
    for seconds in (0.3, 0.3, 1.0, 3.0):
        shutil.rmtree(folder, ignore_errors=True)
        time.sleep(seconds)
        if not folder.exists():
            return
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _lock(destination: Path) -> Iterator[None]:
    path = destination.with_name(destination.name + ".lock")
    while True:
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            raise InputError(
                f"{destination}: another process is writing it; wait for it or choose another place"
            ) from error
        # Whoever held it before may have removed the file between our opening and locking it.
        if path.exists() and os.fstat(descriptor).st_ino == path.stat().st_ino:
            break
        os.close(descriptor)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _bring_to_disk(folder: Path) -> None:
    for path in (*folder.rglob("*"), folder):
        _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
