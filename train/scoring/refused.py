"""Answers and lines that cannot be scored: the first ends the work, or all are counted and left
out, as by the commands that prepare data."""

import sys

from train.data.unit_files import MAX_COMPLAINTS, check_complaint


class Refused:
    """What was left out.

    Attributes:
      count: of all.
    """

    def __init__(self, on_error: str) -> None:
        """Args:
        on_error: `stop` or `skip`.
        """
        self.count = 0
        self._on_error = on_error
        self._complaints: list[str] = []

    def add(self, complaint: str) -> None:
        """Counts what `complaint` is about. Raises `InputError` where nothing may be left out."""
        check_complaint(complaint, on_error=self._on_error)
        self.count += 1
        if self.count <= MAX_COMPLAINTS:
            self._complaints.append(complaint)

    @property
    def said(self) -> str:
        """To be put after what was counted."""
        return f", {self.count:,} left out" if self.count else ""

    def tell(self) -> None:
        """Says on stderr what was wrong with the first."""
        for complaint in self._complaints:
            print(f"left out: {complaint}", file=sys.stderr)
