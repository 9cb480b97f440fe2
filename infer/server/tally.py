"""The counts and times of one request's answers."""

import time

from infer.answers import AnswerDelta
from infer.server.metrics import Metrics


class Tally:
    """Takes note of every delta; `start` is when the request arrived, of `time.monotonic`."""

    def __init__(self, metrics: Metrics, start: float):
        self._metrics = metrics
        self._start = start
        self._first: dict[tuple[int, int], tuple[float, int]] = {}
        self._num_new: dict[tuple[int, int], int] = {}
        self.num_prompt_tokens = 0

    @property
    def num_new_tokens(self) -> int:
        """Of all samples so far."""
        return sum(self._num_new.values())

    def add(self, number: int, delta: AnswerDelta) -> None:
        """What is new about sample `delta.index` of the request's prompt `number`."""
        sample = number, delta.index
        num_tokens, now = delta.num_new_tokens, time.monotonic()
        self._num_new[sample] = num_tokens
        if num_tokens and sample not in self._first:
            if not self._first:
                self._metrics.time_to_first_token.observe(now - self._start)
            # Tokens that come together with the first took no time of their own.
            self._first[sample] = now, num_tokens
        elif delta.finish_reason is not None and sample in self._first:
            first, num_first = self._first[sample]
            if num_tokens > num_first:
                self._metrics.time_per_token.observe((now - first) / (num_tokens - num_first))
