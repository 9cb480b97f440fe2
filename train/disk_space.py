"""A disk that runs full, or a limit on files, in the middle of long work: nothing is lost by it."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_NO_SPACE = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)


@contextmanager
def advising_space(folder: str | Path, *, goes_on: str) -> Iterator[None]:
    """Errors of the operating system that mean a lack of space say what to do.

    Args:
      folder: that is written to; named where the error names no file.
      goes_on: from where the work goes on when it is done again.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_SPACE:
            raise
        advice = f"free space there and run the same command again: it goes on {goes_on}"
        path = error.filename or str(folder)
        raise OSError(error.errno, f"{error.strerror}; {advice}", path) from error
