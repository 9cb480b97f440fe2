"""SIGTERM and SIGINT in one process; jobs of several are in test_checkpointing_processes.py."""

import os
import signal

import pytest

from train.preemption import Preemption


class Ended(Exception):
    """What the handler found before makes of the signal."""


@pytest.fixture
def front_door():
    """A handler that ends at once, as that of the front door."""

    def end(number, frame):
        raise Ended

    before = signal.signal(signal.SIGTERM, end)
    yield
    signal.signal(signal.SIGTERM, before)


def test_sigterm_is_noted_within_and_ends_the_process_outside(front_door):
    with Preemption() as preemption:
        assert not preemption.requested(0)
        os.kill(os.getpid(), signal.SIGTERM)
        assert preemption.requested(1)
        assert preemption.requested(2)
    with pytest.raises(Ended):
        os.kill(os.getpid(), signal.SIGTERM)
        signal.sigtimedwait([], 1)


def test_the_handler_before_is_back_after_an_error(front_door):
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyError), Preemption():
        assert signal.getsignal(signal.SIGTERM) != before
        raise KeyError
    assert signal.getsignal(signal.SIGTERM) == before


def test_the_first_interrupt_is_noted_and_the_second_ends_the_process(capsys):
    with Preemption() as preemption:
        os.kill(os.getpid(), signal.SIGINT)
        assert preemption.requested(1)
        assert preemption.exit_code == 130
        assert "Ctrl-C again" in capsys.readouterr().err
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            signal.sigtimedwait([], 1)
