"""Which kernels a run computes with, told once as they are chosen.

Most are chosen while a step is traced, deep in the model, from shapes and devices. They say so to
Python's logging; here it is shown where the run shows everything else.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# The packages whose modules choose.
_LOGGERS = ("llama_jax.kernels", "llama_jax.quantization")


@contextmanager
def kernels_told(say: Callable[[str], None]) -> Iterator[None]:
    """Calls `say` with a line for each kernel that is chosen meanwhile."""
    handler = _Handler(say)
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    before = [(logger.level, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        # Libraries of checkpoints and data give the root logger a handler, which would tell it too.
        logger.propagate = False
    try:
        yield
    finally:
        for logger, (level, propagate) in zip(loggers, before, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)
            logger.propagate = propagate


class _Handler(logging.Handler):
    def __init__(self, say: Callable[[str], None]):
        super().__init__(logging.INFO)
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        self._say(record.getMessage())
