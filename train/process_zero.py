"""Work that one process of a job does while the others wait.

They wait at a barrier of the coordination service, which knows of processes that die, and not in a
collective operation of the devices, whose libraries take a long wait for a failure.
"""

import itertools
from collections.abc import Callable

import jax
import numpy as np
from jax.experimental import multihost_utils

_LONGEST_WAIT_SECONDS = 24 * 3600
_waits = itertools.count()


def as_process_zero_says(answer: bool) -> bool:
    """`answer` of process 0, on all processes, which all call it: files that they look at may be
    read by one of them before and by another after a change."""
    if jax.process_count() == 1:
        return answer
    return bool(multihost_utils.broadcast_one_to_all(np.int32(answer)))


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
        import orbax.checkpoint as ocp

        barrier = ocp.multihost.get_barrier_sync_fn(processes=set(range(jax.process_count())))
        key = f"work of process 0, {next(_waits)}"
        barrier(key=key, timeout_ms=_LONGEST_WAIT_SECONDS * 1000)
        done = multihost_utils.broadcast_one_to_all(np.int32(failure is None))
        if not done and jax.process_index() > 0:
            raise OSError("process 0 could not go on; its message says why")
    if failure is not None:
        raise failure
