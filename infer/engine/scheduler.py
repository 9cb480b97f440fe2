"""Which rows run, which wait, and which give their pages back. Host arithmetic only.

First come, first served: a row is admitted when a place is free and there are pages for its prompt
and its first steps. Running rows take more pages as they grow; when there are none left, the row
that came last loses its own, waits at its old place in line, and computes everything again
(preemption by recomputation, as vLLM). A row that fits alone is sure to be answered: the first in
line never loses its pages to a later one.
"""

import bisect

from infer.engine.page_pool import PagePool
from infer.engine.row import Row
from infer.engine.settings import EngineSettings


class Scheduler:
    """Rows in line, rows with pages, and the pool."""

    def __init__(self, settings: EngineSettings):
        self.settings = settings
        self.pool = PagePool(settings.num_pages, settings.page_size)
        self.waiting: list[Row] = []  # by request_id
        self.running: list[Row] = []  # by request_id
        self.num_preemptions = 0
        self.num_shared_tokens = 0

    def add(self, row: Row) -> None:
        """Puts a row in line."""
        bisect.insort(self.waiting, row, key=lambda row: row.request_id)

    def remove(self, row: Row) -> None:
        """Forgets a row and releases its pages."""
        if row in self.running:
            self.running.remove(row)
            self._release(row)
        else:
            self.waiting.remove(row)

    def admit(self) -> None:
        """Lets rows in, in order, as long as there are places and pages.

        A row whose prompt begins like one that is being computed waits until it can share that.
        """
        computing = self.prefilling()
        for row in list(self.waiting):
            if len(self.running) == self.settings.num_rows:
                return
            shared = self._shared(row)
            if self._shares_more_soon(row, len(shared), computing):
                continue
            if not self._give_pages(row, shared):
                return
            self.waiting.remove(row)
            bisect.insort(self.running, row, key=lambda row: row.request_id)
            computing.append(row)

    def prefilling(self) -> list[Row]:
        """Running rows with something of their prompt to compute, in order."""
        return [row for row in self.running if row.num_to_prefill]

    def decoding(self) -> list[Row]:
        """Running rows that can decode, each with pages for what a call may write.

        Rows that came later lose theirs where there are not enough.
        """
        ready: list[Row] = []
        for row in list(self.running):
            if row.num_to_prefill or row not in self.running:
                continue
            while not self._grow(row, row.num_cached + self._most_written(row.num_steps_left)):
                last = self.running[-1]
                self._preempt(last)
                if last is row:
                    break
            else:
                ready.append(row)
        return ready

    def name_pages(self, row: Row) -> None:
        """Lets others share what `row` has computed of its prompt."""
        if self.settings.prefix_sharing:
            num_computed = min(row.num_cached, len(row.request.prompt) - 1)
            row.num_named = self.pool.name(
                row.pages, row.request.prompt[:num_computed], row.num_named
            )

    def _shared(self, row: Row) -> list[int]:
        """Pages that hold the beginning of the row's prompt already. A row that wants
        log-probabilities of its prompt computes all of it."""
        if not self.settings.prefix_sharing or row.wants_prompt_logprobs:
            return []
        return self.pool.shared(row.request.prompt[:-1])

    def _shares_more_soon(self, row: Row, num_shared: int, computing: list[Row]) -> bool:
        if not self.settings.prefix_sharing or row.wants_prompt_logprobs:
            return False
        return any(
            other.num_to_prefill and self._num_common_pages(row, other) > num_shared
            for other in computing
        )

    def _num_common_pages(self, row: Row, other: Row) -> int:
        """Whole pages at the start of both prompts that hold the same."""
        size = self.settings.page_size
        ours, theirs = row.request.prompt, other.request.prompt
        count = 0
        while (count + 1) * size < min(len(ours), len(theirs)):
            page = slice(count * size, (count + 1) * size)
            if ours[page] != theirs[page]:
                break
            count += 1
        return count

    def _give_pages(self, row: Row, shared: list[int]) -> bool:
        """Pages for the prompt and the first call of decoding; False if that would leave less than
        a page for each row that runs: it would soon be preempted."""
        self.pool.take(shared)
        num_tokens = len(row.request.prompt) - 1
        num_tokens += self._most_written(row.request.max_new_tokens)
        missing = self.settings.pages_for(num_tokens) - len(shared)
        if missing + len(self.running) > self.pool.num_available:
            self.pool.release(shared)
            return False
        row.pages = [*shared, *(self.pool.allocate(missing) or ())]
        row.num_named = len(shared)
        row.num_cached = len(shared) * self.settings.page_size
        self.num_shared_tokens += row.num_cached
        return True

    def _most_written(self, num_left: int) -> int:
        """Tokens that a decode call may write of a row that gets at most `num_left` more; wrong
        guesses included."""
        num_drafts = self.settings.num_drafts
        return min(self.settings.decode_steps * (1 + num_drafts), num_left) + num_drafts

    def _grow(self, row: Row, num_tokens: int) -> bool:
        missing = self.settings.pages_for(num_tokens) - len(row.pages)
        if missing > 0:
            pages = self.pool.allocate(missing)
            if pages is None:
                return False
            row.pages.extend(pages)
        return True

    def _preempt(self, row: Row) -> None:
        self.running.remove(row)
        self._release(row)
        self.add(row)
        self.num_preemptions += 1

    def _release(self, row: Row) -> None:
        self.pool.release(row.pages)
        row.pages, row.num_named, row.num_cached = [], 0, 0
