"""Work that one process of a job does while the others wait."""

from collections.abc import Callable

import jax
import numpy as np
from jax.experimental import multihost_utils


def on_process_zero(work: Callable[[], None]) -> None:
    """Runs `work` on process 0. All processes call it, and return when it is done.

    Raises what `work` raises on process 0, and `OSError` on the others, which would otherwise wait
    for ever.
    """
    failure = None
    if jax.process_index() == 0:
        try:
            work()
        except Exception as error:
            failure = error
    if jax.process_count() > 1:
        done = multihost_utils.broadcast_one_to_all(np.int32(failure is None))
        if not done and jax.process_index() > 0:
            raise OSError("process 0 could not write; its message says why")
    if failure is not None:
        raise failure
