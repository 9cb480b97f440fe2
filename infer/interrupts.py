"""Ctrl-C that stops one piece of work and never the program.

Python's own handler raises `KeyboardInterrupt` anywhere, so a second Ctrl-C while the first is
dealt with would end the program.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager


class Interrupts:
    """Inside `with interrupts:`, Ctrl-C raises `KeyboardInterrupt`, once; elsewhere it does nothing
    while the handler is installed."""

    def __init__(self):
        self._may_raise = False

    @contextmanager
    def installed(self) -> Iterator[None]:
        """In here Ctrl-C is handled as above; a program that was started without it stays so."""
        before = signal.getsignal(signal.SIGINT)
        if before is not signal.default_int_handler:
            yield
            return
        signal.signal(signal.SIGINT, self._handle)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def __enter__(self) -> None:
        self._may_raise = True

    def __exit__(self, *_) -> None:
        self._may_raise = False

    def _handle(self, *_) -> None:
        if self._may_raise:
            self._may_raise = False
            raise KeyboardInterrupt
