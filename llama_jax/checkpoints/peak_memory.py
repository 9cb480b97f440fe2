"""The most anonymous memory this process had while something ran.

Anonymous memory (RssAnon) is what no file stands behind: a machine must really have it. Pages of
memory-mapped checkpoints are not in it; the kernel takes them back when it needs the room.
"""

import threading
from pathlib import Path

_STATUS = Path("/proc/self/status")
_PERIOD_SECONDS = 0.01


class PeakMemory:
    """Samples RssAnon in a light thread between entering and leaving.

    Attributes:
      peak_bytes: the most seen so far, or None where the system does not tell (no /proc).
    """

    def __init__(self):
        self.peak_bytes = _anonymous_bytes()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="peak-memory", daemon=True)

    def __enter__(self) -> "PeakMemory":
        if self.peak_bytes is not None:
            self._thread.start()
        return self

    def __exit__(self, *exception) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _sample(self) -> None:
        while not self._stop.wait(_PERIOD_SECONDS):
            self.peak_bytes = max(self.peak_bytes, _anonymous_bytes())


def _anonymous_bytes() -> int | None:
    if not _STATUS.exists():
        return None
    for line in _STATUS.read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return None
