"""Where the time of a run goes: steps, waiting for data, compiling, saving, evaluating.

A step's time is what passed since the step before it was done, less what was set aside for
compiling, saving and evaluating; waiting for the next batch is part of it, and is also counted by
itself. The loop must call `step_done` when a result of the step has arrived on the host: JAX hands
out results before they are computed.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

ASIDES = ("compile", "checkpoint", "evaluation")
_PERCENTILES = (50, 90, 99)


class StepTimer:
    """Times the steps of a loop; make it right before the first of them."""

    def __init__(self, *, window: int = 200, clock: Callable[[], float] = time.perf_counter):
        """Args: the number of latest steps of which percentiles are taken, and a clock in
        seconds."""
        self._clock = clock
        self._latest: deque[float] = deque(maxlen=window)
        self._step_began = clock()
        self._step_wait = self._step_aside = 0.0
        self._reset()

    def _reset(self) -> None:
        self._steps = 0
        self._seconds = self._wait = 0.0
        self._asides = dict.fromkeys(ASIDES, 0.0)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Around taking the next batch."""
        began = self._clock()
        try:
            yield
        finally:
            self._step_wait += self._clock() - began

    @contextmanager
    def aside(self, what: str) -> Iterator[None]:
        """Around what is no part of a step: one of `ASIDES`. They do not nest."""
        if what not in ASIDES:
            raise ValueError(f"{what!r} is not one of {ASIDES}")
        began = self._clock()
        try:
            yield
        finally:
            seconds = self._clock() - began
            self._step_aside += seconds
            self._asides[what] += seconds

    def step_done(self) -> None:
        """Ends a step and begins the next."""
        now = self._clock()
        seconds = now - self._step_began - self._step_aside
        self._latest.append(seconds)
        self._steps += 1
        self._seconds += seconds
        self._wait += self._step_wait
        self._step_began = now
        self._step_wait = self._step_aside = 0.0

    def take(self) -> dict[str, float]:
        """What passed since the last call, in seconds:

        `interval_seconds` of the steps done, `step_seconds_p50`, `_p90`, `_p99` over the latest
        steps, `data_wait_share` of `interval_seconds` (0 to 1), and `compile_seconds`,
        `checkpoint_seconds` (how long the loop stood still for one), `evaluation_seconds`.
        Without a step since, only the last three.
        """
        values = {}
        if self._steps:
            values["interval_seconds"] = self._seconds
            points = np.percentile(self._latest, _PERCENTILES)
            for percentile, seconds in zip(_PERCENTILES, points, strict=True):
                values[f"step_seconds_p{percentile}"] = float(seconds)
            values["data_wait_share"] = self._wait / self._seconds if self._seconds else 0.0
        values |= {f"{what}_seconds": seconds for what, seconds in self._asides.items()}
        self._reset()
        return values
