"""Which rows are finished, as far as the parts of all processes say."""

from pathlib import Path

import numpy as np

from infer.batch.part_file import read_part


class KeptRows:
    """The rows in the files of the folder `parts`, read on from where the last look ended.

    Attributes:
      is_kept: bool `[rows]`.
    """

    def __init__(self, parts: Path, num_rows: int):
        self._parts = parts
        self._ends: dict[Path, int] = {}
        self.is_kept = np.zeros(num_rows, bool)

    def look(self) -> None:
        """Reads what has come since."""
        for path in part_files(self._parts):
            start = self._ends.get(path, 0)
            for kept, end in read_part(path, start=start, num_rows=len(self.is_kept)):
                self.is_kept[kept.row] = True
                self._ends[path] = end

    def leftovers(self) -> dict[Path, int]:
        """Bytes at the end of each file that were no whole line at the last look, if any: what a
        process that was killed had begun to write, or one at work was just writing."""
        sizes = {path: path.stat().st_size for path in part_files(self._parts)}
        torn = {path: size - self._ends.get(path, 0) for path, size in sizes.items()}
        return {path: size for path, size in torn.items() if size}


def part_files(parts: Path) -> list[Path]:
    """The files of finished rows in the folder `parts`, by name."""
    return sorted(parts.glob("*.jsonl"))
