"""Who answers which rows: a claim is the operating system's lock on one byte of a file.

The schedule is cut into blocks. Block k is byte k + 1 of the file `claims`: its lock says that
somebody works on it now, its value how far it is (nobody began it, somebody did, all its rows are
kept). A lock ends with the process that holds it, however that ends, so nothing of a dead process
has to be waited for: whoever finds a byte that says "begun" and no lock on it takes over what is
left of the block. Byte 0 is the job itself: it is locked while the manifest is written and while
the parts are merged.

These are POSIX record locks (`fcntl`), which NFS, Lustre (mounted with `flock`), GPFS and CephFS
keep across hosts; the lock of a host that vanishes goes when the server notices (about 90 s with
NFS 4). A lease with a heartbeat would need the clocks of all hosts, and a process that slept
through its lease would have to be kept from writing. Here every process writes a file of its own
and an answer depends on its row alone: if a file system only pretends to lock, rows are computed
twice and kept once.
"""

import errno
import fcntl
import os
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np

OPEN, BEGUN, DONE = b"\0", b"\1", b"\2"
_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)
# Between looks for blocks of processes that died: while there are others, and when there are none.
_SECONDS_BETWEEN_LOOKS, _SECONDS_AT_THE_END = 30.0, 1.0


class Claims:
    """The claims of one job, as this process sees and holds them.

    One object for each file and process: closing any other descriptor of the file would end all
    locks of the process (POSIX).

    Attributes:
      has_locks: False on a file system without locks; then every claim succeeds.
    """

    def __init__(self, path: Path):
        """Opens the file, which is made."""
        self._path = path
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        self._held: set[int] = set()
        self._looked = float("-inf")
        self.num_blocks = 0
        self.has_locks = True

    def is_in_place(self) -> bool:
        """Whether the file still has its name; the process that ends a job removes it."""
        try:
            return os.fstat(self._file).st_ino == os.stat(self._path).st_ino
        except FileNotFoundError:
            return False

    def lock_job(self) -> None:
        """Waits until no other process starts or ends the job."""
        self._lock(0, waits=True)

    def unlock_job(self) -> None:
        self._unlock(0)

    def set_blocks(self, num_blocks: int) -> None:
        """Says how many blocks there are, with the job locked."""
        self.num_blocks = num_blocks
        if os.fstat(self._file).st_size != num_blocks + 1:
            os.ftruncate(self._file, num_blocks + 1)  # what is new reads as OPEN

    def states(self) -> np.ndarray:
        """uint8 `[blocks]`."""
        return np.frombuffer(os.pread(self._file, self.num_blocks + 1, 0), np.uint8)[1:]

    @property
    def held(self) -> frozenset[int]:
        """The blocks that this process works on."""
        return frozenset(self._held)

    def take(self) -> tuple[int, bool] | None:
        """The first block that nobody works on and that is not done, and whether somebody had begun
        it; None if there is none. Begun ones are looked for now and then only."""
        states = self.states()
        fresh = np.flatnonzero(states == OPEN[0])
        now = time.monotonic()
        if now - self._looked >= (_SECONDS_BETWEEN_LOOKS if len(fresh) else _SECONDS_AT_THE_END):
            found = self._first_free(np.flatnonzero(states == BEGUN[0]))
            if found is not None:
                return found  # where one was there may be more: the time of this look is not kept
            self._looked = now
        return self._first_free(fresh)

    def finish(self, block: int) -> None:
        """Says that all rows of `block` are kept, and gives it up."""
        os.pwrite(self._file, DONE, block + 1)
        self._held.remove(block)
        self._unlock(block + 1)

    def reopen(self, block: int) -> None:
        """Says that rows of a block are missing that was said to be done, with the job locked."""
        os.pwrite(self._file, BEGUN, block + 1)
        self._looked = float("-inf")

    def are_all_mine(self) -> bool:
        """Whether no other process works on a block, with the job locked; False where nobody can
        tell."""
        return self._lock(1, waits=False, count=0) and self.has_locks

    def close(self) -> None:
        """Gives up all that is held."""
        os.close(self._file)

    def _first_free(self, blocks: Iterable[int]) -> tuple[int, bool] | None:
        for block in map(int, blocks):
            if block in self._held or not self._lock(block + 1, waits=False):
                continue
            # It may have been finished between the look and the lock.
            state = os.pread(self._file, 1, block + 1)
            if state != DONE:
                os.pwrite(self._file, BEGUN, block + 1)
                self._held.add(block)
                return block, state == BEGUN
            self._unlock(block + 1)
        return None

    def _lock(self, byte: int, *, waits: bool, count: int = 1) -> bool:
        """Whether `count` bytes from `byte` on, or all of them for 0, are this process's now."""
        try:
            how = fcntl.LOCK_EX if waits else fcntl.LOCK_EX | fcntl.LOCK_NB
            fcntl.lockf(self._file, how, count, byte)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                return False
            if error.errno not in _NO_LOCKS:
                raise OSError(error.errno, error.strerror, str(self._path)) from error
            self.has_locks = False
        return True

    def _unlock(self, byte: int) -> None:
        if self.has_locks:
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, byte)
