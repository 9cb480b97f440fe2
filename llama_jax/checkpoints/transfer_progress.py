"""How far a long transfer has come: a bar on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

_SECONDS_BETWEEN_LINES = 10.0


class Advance(Protocol):
    """Called with the number of bytes just done."""

    def __call__(self, num_bytes: int) -> None: ...


@contextmanager
def transfer_progress(title: str, total_bytes: int, *, quiet: bool) -> Iterator[Advance]:
    """Shows progress on stderr, with rate and time left: nothing if `quiet`."""
    if quiet:
        yield lambda num_bytes: None
    elif sys.stderr.isatty():
        with _bar(title, total_bytes) as advance:
            yield advance
    else:
        yield _Lines(title, total_bytes)


@contextmanager
def _bar(title: str, total_bytes: int) -> Iterator[Advance]:
    from rich import progress
    from rich.console import Console

    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.DownloadColumn(),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=total_bytes)
        yield lambda num_bytes: bar.advance(task, num_bytes)


class _Lines:
    """A line every ten seconds."""

    def __init__(self, title: str, total_bytes: int):
        self._title, self._total, self._done = title, total_bytes, 0
        self._start = self._last = time.monotonic()

    def __call__(self, num_bytes: int) -> None:
        self._done += num_bytes
        now = time.monotonic()
        if now - self._last < _SECONDS_BETWEEN_LINES:
            return
        self._last = now
        rate = self._done / (now - self._start)
        print(
            f"{self._title}: {self._done / 1e9:.1f} of {self._total / 1e9:.1f} GB, "
            f"{rate / 1e6:.0f} MB/s, {(self._total - self._done) / rate:.0f} s left",
            file=sys.stderr,
            flush=True,
        )
