"""One training at a time in a folder: two would write over each other's checkpoints.

The lock is the operating system's and ends with the process that holds it, however that ends. The
file stays, and says nothing by being there.
"""

import errno
import fcntl
import os
import socket
import sys
from pathlib import Path

from llama_jax.errors import InputError

LOCK_FILE = ".lock"
_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)


class RunLock:
    """A context that gives back what `take` has taken."""

    def __init__(self, run_folder: str | Path):
        self._run_folder = Path(run_folder)
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
                f"{self._run_folder}: another process trains in it{holder}; wait for its end, or "
                "give another --output"
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
        self._file.truncate(0)
        self._file.write(f"{os.getpid()} {socket.gethostname()}")
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
