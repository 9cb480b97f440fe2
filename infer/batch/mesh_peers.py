"""The processes of one mesh: all must give the engine the same rows in the same order.

Each computes its part of every step, so a row that one has and another has not would hang them all.
Process 0 decides, claims and writes; the others are told the numbers of the next rows and read them
from the input themselves.
"""

import atexit
import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import jax
import numpy as np

from llama_jax.errors import InputError

_SECONDS_FOR_OTHERS = 1.0  # to say what is wrong, where the same is wrong everywhere

Result = TypeVar("Result")


class MeshPeers:
    """The processes that `jax.distributed` has joined; often this one alone."""

    @property
    def count(self) -> int:
        """How many they are. Alone, no device is touched to know it."""
        return jax.process_count() if jax.distributed.is_initialized() else 1

    @property
    def is_first(self) -> bool:
        """Whether this process decides and writes."""
        return self.count == 1 or jax.process_index() == 0

    def agree(self, numbers: list[int], *, most: int) -> list[int]:
        """`numbers` of process 0 on all processes, which must all call it; what the others give
        does not count.

        Args:
          most: numbers there can be, the same everywhere: it fixes the shape that is sent.
        """
        if self.count == 1:
            return numbers
        from jax.experimental import multihost_utils

        # Two halves of 31 bits: without jax_enable_x64 an int64 would lose its upper one.
        padded = np.full((most, 2), -1, np.int32)
        for place, number in enumerate(numbers if self.is_first else ()):
            padded[place] = number >> 31, number & (2**31 - 1)
        agreed = np.asarray(multihost_utils.broadcast_one_to_all(padded))
        return [(int(high) << 31) | int(low) for high, low in agreed if high >= 0]

    def gather(self, text: str) -> list[str]:
        """What each process says, in their order; all must call it."""
        if self.count == 1:
            return [text]
        from jax.experimental import multihost_utils

        own = np.frombuffer(text.encode(), np.uint8)
        lengths = multihost_utils.process_allgather(np.int32(len(own)))
        padded = np.zeros(max(int(lengths.max()), 1), np.uint8)
        padded[: len(own)] = own
        said = multihost_utils.process_allgather(padded)
        return [row[:n].tobytes().decode() for row, n in zip(said, lengths, strict=True)]

    def together(self, work: Callable[[], Result]) -> Result:
        """What `work` returns, which every process does and in which it waits for no other.

        Raises what `work` raises. Where it fails in one process, the others raise `InputError` with
        that process's reason instead of waiting for it.
        """
        result, failure = None, None
        try:
            result = work()
        except (InputError, OSError) as error:
            failure = error
        reasons = self.gather("" if failure is None else str(failure) or type(failure).__name__)
        if failure is not None:
            raise failure
        for number, reason in enumerate(reasons):
            if reason:
                raise InputError(f"process {number} cannot begin: {reason}")
        return result

    @contextlib.contextmanager
    def ended_by_errors(self) -> Iterator[None]:
        """Within it an error of one process ends them all.

        An orderly end would wait for the others, who stand in a sum with this one. Once it is gone,
        JAX's coordination service ends them too (SIGABRT): at once if it was process 0, else after
        `peer_timeout` (`sharding/multihost.py`).
        """
        try:
            yield
        except Exception as error:
            if self.count > 1:
                is_told = isinstance(error, InputError | OSError)  # by the front door, in a line
                atexit.register(_leave, 2 if is_told else 1, is_first=self.is_first)
            raise


def _leave(exit_code: int, *, is_first: bool) -> None:
    """Ends the process before JAX's own function of `atexit`, which was registered earlier and
    would wait."""
    if is_first:
        time.sleep(_SECONDS_FOR_OTHERS)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)
