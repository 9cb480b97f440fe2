"""How far preparing has come: a bar on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_SECONDS_BETWEEN_LINES = 10.0

# Called with the bytes, documents and tokens done since the last call.
Report = Callable[[int, int, int], None]


@contextmanager
def prepare_progress(title: str, total_bytes: int, *, quiet: bool) -> Iterator[Report]:
    """Shows bytes, documents, tokens a second and time left on stderr; nothing if `quiet`."""
    if quiet:
        yield lambda num_bytes, num_documents, num_tokens: None
    elif sys.stderr.isatty():
        with _bar(title, total_bytes) as report:
            yield report
    else:
        yield _Lines(title, total_bytes)


@contextmanager
def _bar(title: str, total_bytes: int) -> Iterator[Report]:
    from rich import progress
    from rich.console import Console

    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.DownloadColumn(),
        progress.TextColumn("{task.fields[rate]}"),
        progress.TimeRemainingColumn(),
    )
    done = _Done()
    with progress.Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=total_bytes, rate="")

        def report(num_bytes: int, num_documents: int, num_tokens: int) -> None:
            done.add(num_bytes, num_documents, num_tokens)
            bar.update(task, completed=done.num_bytes, rate=done.rate())

        yield report


class _Done:
    """What has been done so far, and how fast."""

    def __init__(self) -> None:
        self.num_bytes = self._num_documents = self._num_tokens = 0
        self._start = time.monotonic()

    def add(self, num_bytes: int, num_documents: int, num_tokens: int) -> None:
        self.num_bytes += num_bytes
        self._num_documents += num_documents
        self._num_tokens += num_tokens

    def rate(self) -> str:
        tokens_per_second = self._num_tokens / max(time.monotonic() - self._start, 1e-3)
        documents = f"{self._num_documents:,} documents, " if self._num_documents else ""
        return f"{documents}{tokens_per_second:,.0f} tokens/s"

    def seconds_left(self, total_bytes: int) -> float:
        seconds = time.monotonic() - self._start
        return seconds * max(total_bytes - self.num_bytes, 0) / max(self.num_bytes, 1)


class _Lines:
    """A line every ten seconds."""

    def __init__(self, title: str, total_bytes: int) -> None:
        self._title, self._total = title, total_bytes
        self._done, self._last = _Done(), time.monotonic()

    def __call__(self, num_bytes: int, num_documents: int, num_tokens: int) -> None:
        self._done.add(num_bytes, num_documents, num_tokens)
        now = time.monotonic()
        if now - self._last < _SECONDS_BETWEEN_LINES:
            return
        self._last = now
        print(
            f"{self._title}: {self._done.num_bytes / 1e6:,.0f} of {self._total / 1e6:,.0f} MB, "
            f"{self._done.rate()}, {self._done.seconds_left(self._total):.0f} s left",
            file=sys.stderr,
            flush=True,
        )
