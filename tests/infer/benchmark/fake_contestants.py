"""Contestants whose answers and failures are known, made in processes of their own."""

import os
import time

from infer.benchmark.contestant import Outcome


class Counting:
    """Answers each prompt with its length, again and again; `slow` seconds a run."""

    weight_bytes = 1000

    def __init__(self, offset: int = 0):
        self._offset = offset

    def warm_up(self, workload):
        pass

    def run(self, workload, *, slow=0.0):
        start = time.perf_counter()
        time.sleep(slow)
        tokens = [[len(prompt) + self._offset] * workload.new_tokens for prompt in workload.prompts]
        return Outcome(time.perf_counter() - start, tokens)


class Failing(Counting):
    def run(self, workload, **variant):
        raise ValueError("cannot\nrun")


class Dying(Counting):
    def run(self, workload, **variant):
        os._exit(3)


def unmakeable():
    raise ImportError("no such package")
