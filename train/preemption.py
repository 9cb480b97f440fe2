"""Being told to go: a job scheduler sends SIGTERM, and some seconds later it kills.

One process notes the signal and finishes its step. Of several, perhaps only one is told, and all
must save the same step: JAX's preemption service passes the news on and agrees on a step that none
has passed yet (`multihost_utils.reached_preemption_sync_point`). It takes SIGTERM over when
`jax.distributed.initialize` is called, so no handler of ours may replace it then.
"""

import signal

import jax
from jax.experimental import multihost_utils


class Preemption:
    """Context in which SIGTERM means "save and end". The handler found before (the front door's,
    which ends the process at once) is in force again after it.

    Enter it on the main thread, after `jax.distributed.initialize` if that is called.
    """

    def __init__(self):
        self._told = False
        self._previous = None

    def __enter__(self) -> "Preemption":
        if not jax.distributed.is_initialized():
            self._previous = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, *exception) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGTERM, self._previous)
            self._previous = None

    def requested(self, step: int) -> bool:
        """Whether to save now and end; the same on all processes. To be asked once each step, with
        rising `step`, by all of them."""
        if jax.distributed.is_initialized() and not self._told:
            self._told = multihost_utils.reached_preemption_sync_point(step)
        return self._told

    def _note(self, number: int, frame: object) -> None:
        self._told = True
