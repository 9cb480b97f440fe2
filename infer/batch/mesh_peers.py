"""The processes of one mesh: all must give the engine the same rows in the same order.

Each computes its part of every step, so a row that one has and another has not would hang them all.
Process 0 decides, claims and writes; the others are told the numbers of the next rows and read them
from the input themselves.
"""

import jax
import numpy as np


class MeshPeers:
    """The processes that `jax.distributed` has joined; often this one alone."""

    @property
    def is_first(self) -> bool:
        """Whether this process decides and writes."""
        return jax.process_index() == 0

    def agree(self, numbers: list[int], *, most: int) -> list[int]:
        """`numbers` of process 0 on all processes, which must all call it; what the others give
        does not count.

        Args:
          most: numbers there can be, the same everywhere: it fixes the shape that is sent.
        """
        if jax.process_count() == 1:
            return numbers
        from jax.experimental import multihost_utils

        # Two halves of 31 bits: without jax_enable_x64 an int64 would lose its upper one.
        padded = np.full((most, 2), -1, np.int32)
        for place, number in enumerate(numbers if self.is_first else ()):
            padded[place] = number >> 31, number & (2**31 - 1)
        agreed = np.asarray(multihost_utils.broadcast_one_to_all(padded))
        return [(int(high) << 31) | int(low) for high, low in agreed if high >= 0]
