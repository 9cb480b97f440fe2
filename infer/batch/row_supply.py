"""The next rows for this process: block by block, as it claims them."""

from collections import deque
from collections.abc import Iterable

import numpy as np

from infer.batch.claims import DONE
from infer.batch.job import Job
from infer.batch.row_table import RowTable
from infer.batch.schedule import estimated_lengths


class RowSupply:
    """Rows of a job in the order of its schedule, without those that are finished."""

    def __init__(self, job: Job, table: RowTable, order: np.ndarray):
        """
        Args:
          job: opened, with claims.
          order: int64 `[rows]`, see `schedule`.
        """
        self._job = job
        self._order = order
        self._samples = table.rows["samples"]
        self._work = estimated_lengths(table)
        self._block_of_place = np.arange(len(order)) // job.block_rows
        self._kept = job.kept_rows()
        self.leftovers = self._kept.leftovers()
        self._queue: deque[int] = deque()
        self._block_of: dict[int, int] = {}  # of rows that are claimed and not finished
        self._left: dict[int, int] = {}  # rows of a claimed block that are not finished

    def next_rows(self, samples: int) -> list[int]:
        """Rows that have about so many samples together; fewer if nothing else is to be had now."""
        rows: list[int] = []
        while samples > 0 and (self._queue or self._claim()):
            rows.append(self._queue.popleft())
            samples -= int(self._samples[rows[-1]])
        return rows

    def finished(self, rows: Iterable[int]) -> None:
        """To be told when `rows` are kept."""
        for row in rows:
            self._kept.is_kept[row] = True
            block = self._block_of.pop(row)
            self._left[block] -= 1
            if not self._left[block]:
                del self._left[block]
                self._job.claims.finish(block)

    def end(self) -> bool:
        """Whether the job has come to its end, of which this process does what is left to do. To
        be asked when there are no next rows and none in hand."""
        if not (self._job.claims.states() == DONE[0]).all():
            return self._job.is_finished()
        if self._job.finish(self._order):
            return True
        self._kept = self._job.kept_rows()
        return False

    def share_done(self) -> tuple[int, float]:
        """Rows of the whole job that are finished, and their share of its work by estimated length;
        of other processes as far as their blocks are done."""
        blocks_done = self._job.claims.states() == DONE[0]
        is_done = self._kept.is_kept.copy()
        is_done[self._order[blocks_done[self._block_of_place]]] = True
        return int(is_done.sum()), float(self._work[is_done].sum() / max(self._work.sum(), 1))

    def _claim(self) -> bool:
        """Fills the queue from a block; False if there is none."""
        while (taken := self._job.claims.take()) is not None:
            block, was_begun = taken
            if was_begun:
                self._kept.look()
            first = block * self._job.block_rows
            places = self._order[first : first + self._job.block_rows]
            rows = [int(row) for row in places if not self._kept.is_kept[row]]
            if rows:
                self._queue.extend(rows)
                self._left[block] = len(rows)
                self._block_of.update(dict.fromkeys(rows, block))
                return True
            self._job.claims.finish(block)
        return False
