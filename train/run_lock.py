"""One training, or one series of rounds, at a time in a folder: two would write over each other's
checkpoints.

The lock is the operating system's and ends with the process that holds it, however that ends. The
file stays, and says nothing by being there.
"""

import contextlib
import errno
import fcntl
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

from llama_jax.errors import InputError

LOCK_FILE = ".lock"
_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)


class RunLock:
    """A context that gives back what `take` has taken.

    Args:
      work: what is done in the folder, and how to say another, for the error.
    """

    def __init__(
        self,
        run_folder: str | Path,
        *,
        work: str = "trains",
        otherwise: str = "give another --output",
    ):
        self._run_folder = Path(run_folder)
        self._work, self._otherwise = work, otherwise
        self._file = None

    def take(self) -> None:
        """Takes the folder, which is made, for this process.

        Raises `InputError` that names the process which has it. On a file system without locks,
        such as some clusters', it says so and takes nothing.
        """
        self._run_folder.mkdir(parents=True, exist_ok=True)
        self._file = (self._run_folder / LOCK_FILE).open("a+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = self._holder()
            self._give_back()
            raise InputError(
                f"{self._run_folder}: another process {self._work} in it{holder}; wait for its "
                f"end, or {self._otherwise}"
            ) from None
        except OSError as error:
            self._give_back()
            if error.errno not in _NO_LOCKS:
                raise
            print(
                f"{self._run_folder}: its file system has no locks ({error.strerror}), so that "
                "nothing keeps a second training out of it",
                file=sys.stderr,
            )
            return
        self._name(os.getpid())

    def file_descriptors(self) -> tuple[int, ...]:
        """To be passed on to a process that is to hold the folder as well, and if need be longer
        than this one; none where nothing was taken."""
        return () if self._file is None else (self._file.fileno(),)

    @contextlib.contextmanager
    def held_by(self, pid: int) -> Iterator[None]:
        """A context in which errors name the process `pid`, which was given the descriptors."""
        self._name(pid)
        yield
        self._name(os.getpid())

    def _name(self, pid: int) -> None:
        if self._file is not None:
            self._file.truncate(0)
            self._file.write(f"{pid} {socket.gethostname()}")
            self._file.flush()

    def _holder(self) -> str:
        """The process that has the lock, and its host if it is another."""
        self._file.seek(0)
        pid, _, host = self._file.read().partition(" ")
        if not pid:
            return ""  # it has only just taken it
        return f" (pid {pid})" if host == socket.gethostname() else f" (pid {pid} on {host})"

    def _give_back(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> "RunLock":
        return self

    def __exit__(self, *exception: object) -> None:
        self._give_back()
