"""Claims, in real processes: nobody has what another has, and the dead have nothing."""

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from infer.batch import claims as claims_module
from infer.batch.claims import DONE, Claims

ROOT = Path(__file__).parents[3]


class Process:
    """Another process with claims on the same file."""

    def __init__(self, path, num_blocks):
        self.process = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("claim_process.py"), path, str(num_blocks)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert self.process.stdout.readline() == "ready\n"

    def say(self, command):
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()

    def ask(self, command):
        self.say(command)
        return eval(self.process.stdout.readline())

    def kill(self):
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def processes(tmp_path):
    started = []

    def start(num_blocks):
        started.append(Process(tmp_path / "claims", num_blocks))
        return started[-1]

    yield start
    for process in started:
        process.kill()


def test_two_processes_divide_the_blocks(processes):
    one, other = processes(5), processes(5)
    taken = [process.ask("take") for process in (one, other, one, other, one)]
    assert taken == [(block, False) for block in range(5)]
    assert one.ask("take") is None and other.ask("take") is None


def test_the_blocks_of_a_killed_process_are_taken_over(processes, tmp_path):
    one, other = processes(3), processes(3)
    assert one.ask("take") == (0, False)
    assert one.ask("finish 0") is None
    assert one.ask("take") == (1, False)
    assert other.ask("take") == (2, False)
    assert other.ask("take") is None
    one.kill()
    third = processes(3)
    assert third.ask("take") == (1, True)
    assert third.ask("finish 1") is None
    assert third.ask("take") is None
    assert other.ask("finish 2") is None
    claims = Claims(tmp_path / "claims")
    claims.set_blocks(3)
    assert (claims.states() == DONE[0]).all()
    claims.close()


def test_a_survivor_notices_the_death_of_another(processes, tmp_path, monkeypatch):
    monkeypatch.setattr(claims_module, "_SECONDS_AT_THE_END", 0.0)
    other = processes(2)
    claims = Claims(tmp_path / "claims")
    claims.set_blocks(2)
    assert other.ask("take") == (0, False)
    assert claims.take() == (1, False)
    assert claims.take() is None
    other.kill()
    assert claims.take() == (0, True)
    assert claims.held == {0, 1}
    claims.close()


def test_the_job_is_locked_for_one_process_at_a_time(processes, tmp_path):
    one, other = processes(1), processes(1)
    assert one.ask("lock_job") is None
    other.say("lock_job")
    claims = Claims(tmp_path / "claims")
    with pytest.raises(BlockingIOError):
        fcntl.lockf(claims._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 0)
    claims.close()
    one.kill()
    assert other.process.stdout.readline() == "None\n"


def test_a_file_that_was_removed_is_not_in_place(tmp_path):
    claims = Claims(tmp_path / "claims")
    assert claims.is_in_place()
    (tmp_path / "claims").unlink()
    assert not claims.is_in_place()
    other = Claims(tmp_path / "claims")
    assert not claims.is_in_place() and other.is_in_place()
    claims.close()
    other.close()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_without_locks_every_claim_succeeds(tmp_path, monkeypatch, number):
    def no_locks(*_):
        raise OSError(number, "none here")

    monkeypatch.setattr(fcntl, "lockf", no_locks)
    claims = Claims(tmp_path / "claims")
    claims.lock_job()
    claims.set_blocks(2)
    assert not claims.has_locks
    claims.unlock_job()
    assert [claims.take(), claims.take(), claims.take()] == [(0, False), (1, False), None]
    claims.finish(1)
    assert claims.states().tolist() == [1, 2]
    claims.close()
