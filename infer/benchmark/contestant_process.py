"""A contestant in a process of its own, told over a pipe what to do.

So no side's threads spin while another one runs, no side's libraries are loaded into another's
process (two copies of OpenMP in one do not agree), and a crash of one is a line in the report.
"""

import importlib
import multiprocessing
import traceback
from typing import Any

from infer.benchmark.contestant import Entry, Outcome
from infer.benchmark.workload import Workload

_START_SECONDS = 10


class ContestantError(Exception):
    """What a contestant failed with, as its own process said it, in one line."""


class ContestantProcess:
    """Makes the contestant of an `Entry`; use it in a `with` statement.

    Attributes:
      weight_bytes: see `Contestant`.

    Raises `ContestantError` where the contestant raises anything, or its process ends.
    """

    def __init__(self, entry: Entry):
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, entry), daemon=True)
        self._process.start()
        theirs.close()
        try:
            self.weight_bytes: int = self._receive()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "ContestantProcess":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def warm_up(self, workload: Workload) -> None:
        self._ask("warm_up", workload)

    def run(self, workload: Workload, **variant: Any) -> Outcome:
        return self._ask("run", workload, **variant)

    def close(self) -> None:
        """Ends the process, whatever it is doing."""
        self._pipe.close()
        self._process.kill()
        self._process.join()

    def _ask(self, method: str, workload: Workload, **keywords: Any) -> Any:
        self._pipe.send((method, workload, keywords))
        return self._receive()

    def _receive(self) -> Any:
        try:
            answer, error = self._pipe.recv()
        except EOFError:
            self._process.join(_START_SECONDS)
            raise ContestantError(f"its process ended with {self._process.exitcode}") from None
        if error is not None:
            raise ContestantError(error)
        return answer


def _serve(pipe: Any, entry: Entry) -> None:
    """The life of the process: makes the contestant, answers until the pipe closes."""
    try:
        module, name = entry.factory.split(":")
        contestant = getattr(importlib.import_module(module), name)(**entry.arguments)
        pipe.send((contestant.weight_bytes, None))
        while True:
            method, workload, keywords = pipe.recv()
            pipe.send((getattr(contestant, method)(workload, **keywords), None))
    except EOFError:
        return
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        words = " ".join(str(error).split())
        place = f"{last.filename.rsplit('/', 1)[-1]}:{last.lineno}"
        pipe.send((None, f"{type(error).__name__}: {words} ({place})"))
