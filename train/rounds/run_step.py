"""Running one step in a process of its own.

What it says goes to a log file and not through a pipe, so that nothing is lost whoever dies first.
It is the leader of a process group: a terminal's Ctrl-C reaches us alone, and we pass it on, as we
do with SIGTERM, and wait until the step has saved what it wants to keep.
"""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from llama_jax.errors import InputError
from train.rounds.plan import PlannedStep
from train.run_lock import RunLock

_TAIL_BYTES = 16_384
_PAUSE = 0.5  # seconds between two looks at what a step says


class Ended(NamedTuple):
    """Attributes:
    seconds: that a step took.
    code: it ended with, one that it may end with.
    """

    seconds: float
    code: int


def run_step(planned: PlannedStep, lock: RunLock, *, watch: Callable[[str], None]) -> Ended:
    """Runs a step to its end.

    Args:
      lock: of the folder of the rounds; the step holds it too, so that nothing else begins there
        while it runs, should this process be killed.
      watch: is called every now and then with the last line that the step has said.

    Raises `InputError` if the step fails, with what it said last.
    """
    step = planned.step
    for folder in (planned.log.parent, *map(Path, step.folders)):
        folder.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    with open(planned.log, "ab") as log:
        log.write(f"$ {planned.line}\n".encode())
        log.flush()
        begin = log.tell()
        try:
            process = subprocess.Popen(
                step.words(planned.prefix),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=lock.file_descriptors(),
                start_new_session=True,
            )
        except FileNotFoundError as error:
            raise InputError(f"{planned.place}: no program {error.filename!r} to run it") from None
    with lock.held_by(process.pid):
        code = _wait(process, lambda: watch(_last_line(planned.log, begin)))
    if code not in step.accepts:
        raise InputError(
            f"{planned.place} failed ({_ending(code)}): {_complaint(planned.log, begin)} -- its "
            f"command: {planned.line} -- all that it said: {planned.log}"
        )
    missing = [path for path in step.outputs if not os.path.exists(path)]
    if missing:
        raise InputError(
            f"{planned.place}: ended well and has not written {missing[0]}, which the config says "
            f"is its output -- its command: {planned.line}"
        )
    return Ended(time.monotonic() - start, code)


def _wait(process: subprocess.Popen, watch: Callable[[], None]) -> int:
    """The exit code. A signal that would end us (an exception, see the front door) is passed on to
    the process, and ends us after it."""
    stop: BaseException | None = None
    while True:
        try:
            while not _has_ended(process):
                watch()
            break
        except Exception:
            process.terminate()
            raise
        except BaseException as told:
            stop = told
            _pass_on(told, process)
    if stop is not None:
        raise stop
    return process.returncode


def _has_ended(process: subprocess.Popen) -> bool:
    """Within some time."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_PAUSE)
    return process.returncode is not None


def _pass_on(told: BaseException, process: subprocess.Popen) -> None:
    """As a terminal and a job scheduler do it: Ctrl-C is for all that the step has started, SIGTERM
    for the step alone."""
    if process.poll() is None:
        if isinstance(told, KeyboardInterrupt):
            os.killpg(process.pid, signal.SIGINT)
        else:
            process.terminate()


def _ending(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"code {code}"


def _complaint(log: Path, begin: int) -> str:
    """The last line that is an error, for a launcher may say more after it, else the last."""
    lines = _lines(log, begin)
    errors = [line for line in lines if line.startswith("error: ")]
    return errors[-1].removeprefix("error: ") if errors else (lines or ["it said nothing"])[-1]


def _last_line(log: Path, begin: int) -> str:
    return (_lines(log, begin) or [""])[-1]


def _lines(log: Path, begin: int) -> list[str]:
    """The last lines of `log` after the byte `begin`, without empty ones."""
    with open(log, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(begin, size - _TAIL_BYTES))
        text = file.read().decode(errors="replace")
    return [line.strip() for line in text.splitlines() if line.strip()]
