"""Work in several processes: tokenising is plain Python and Rust, one core each.

Processes are started afresh (spawn), since a fork of a process with threads may hang. They hold no
JAX. If the main process ends in any way, even by SIGKILL, they end too; if one of them does, the
run ends with an error and can be continued.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import Any, NamedTuple, TypeVar

from llama_jax.errors import InputError

_SECONDS_BETWEEN_LOOKS = 0.2

Item = TypeVar("Item")
Result = TypeVar("Result")
# Called with the bytes, documents and tokens done since the last call.
Report = Callable[[int, int, int], None]


class _Stopped(Exception):
    """The main process has given up; nobody waits for the result."""


class _Counters:
    """Bytes, documents and tokens done by all processes, and whether all are to stop."""

    def __init__(self, context: Any) -> None:
        self._numbers = context.Array("q", 4)

    def add(self, num_bytes: int, num_documents: int, num_tokens: int) -> None:
        """In a worker. Raises `_Stopped` if it is to stop."""
        with self._numbers.get_lock():
            if self._numbers[3]:
                raise _Stopped
            for place, number in enumerate((num_bytes, num_documents, num_tokens)):
                self._numbers[place] += number

    def read(self) -> list[int]:
        return self._numbers[:3]

    def stop(self) -> None:
        self._numbers[3] = 1

    def free(self) -> None:
        """Gives the shared memory and its semaphore back to the system: now, since after a signal
        the process may leave without another chance to."""
        self._numbers = None


class _Worker(NamedTuple):
    task: Callable[[Any, Report], Any]
    report: Report


# Of a worker process: set when it starts, used for every item.
_worker: list[_Worker] = []


def run_all(
    make_task: Callable[[], Callable[[Item, Report], Result]],
    items: Iterable[Item],
    *,
    workers: int,
    report: Report,
) -> Iterator[Result]:
    """`task(item, report)` for every item, results as they come.

    Args:
      make_task: makes the task, once in each process; pickled, as are items and results.
      workers: processes; 1 works in this one.
      report: called in this process with what has been done, now and then.

    Raises what a task raises, and `InputError` if a process was killed.
    """
    if workers == 1:
        task = make_task()
        yield from (task(item, report) for item in items)
        return
    context = multiprocessing.get_context("spawn")
    counters = _Counters(context)
    pool = ProcessPoolExecutor(
        workers, mp_context=context, initializer=_start, initargs=(make_task, counters)
    )
    try:
        yield from _results(pool, iter(items), workers, counters, report)
    except BrokenProcessPool as error:
        raise InputError(
            "a worker process was killed, perhaps for want of memory; run the same command again "
            "to go on from here, with fewer --workers"
        ) from error
    finally:
        counters.stop()
        pool.shutdown(cancel_futures=True)
        counters.free()


def _results(
    pool: ProcessPoolExecutor,
    items: Iterator[Any],
    workers: int,
    counters: _Counters,
    report: Report,
) -> Iterator[Any]:
    seen = [0, 0, 0]
    # A few more than there are processes: all items at once would be held in memory.
    pending: set[Future] = {pool.submit(_run, item) for item in islice(items, 2 * workers)}
    while pending:
        done, pending = wait(pending, _SECONDS_BETWEEN_LOOKS, FIRST_COMPLETED)
        pending |= {pool.submit(_run, item) for item in islice(items, len(done))}
        now = counters.read()
        report(*(after - before for after, before in zip(now, seen, strict=True)))
        seen = now
        yield from (future.result() for future in done)


def _start(make_task: Callable[[], Callable], counters: _Counters) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the main process
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _worker[:] = [_Worker(make_task(), counters.add)]


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)


def _run(item: Any) -> Any:
    (worker,) = _worker
    return worker.task(item, worker.report)
