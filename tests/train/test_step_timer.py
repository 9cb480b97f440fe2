"""Where the time goes, with a clock that the test moves."""

import numpy as np
import pytest

from train.step_timer import StepTimer


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now

    def pass_seconds(self, seconds):
        self.now += seconds


def test_steps_waits_and_asides_are_told_apart():
    clock = Clock()
    timer = StepTimer(clock=clock)
    with timer.aside("compile"):
        clock.pass_seconds(50)
    for seconds in (1.0, 2.0, 3.0):
        with timer.waiting():
            clock.pass_seconds(0.5)
        clock.pass_seconds(seconds - 0.5)
        with timer.aside("checkpoint"):
            clock.pass_seconds(7)
        timer.step_done()
    values = timer.take()
    assert values["interval_seconds"] == pytest.approx(6.0)
    assert values["step_seconds_p50"] == pytest.approx(2.0)
    assert values["step_seconds_p99"] == pytest.approx(np.percentile([1, 2, 3], 99))
    assert values["data_wait_share"] == pytest.approx(1.5 / 6.0)
    assert values["compile_seconds"] == 50 and values["checkpoint_seconds"] == 21
    assert values["evaluation_seconds"] == 0


def test_an_interval_begins_anew_and_the_window_goes_on():
    clock = Clock()
    timer = StepTimer(window=4, clock=clock)
    for seconds in (100.0, 1.0, 1.0):
        clock.pass_seconds(seconds)
        timer.step_done()
    timer.take()
    assert timer.take() == {
        "compile_seconds": 0, "checkpoint_seconds": 0, "evaluation_seconds": 0
    }  # fmt: skip
    for seconds in (5.0, 5.0):
        clock.pass_seconds(seconds)
        timer.step_done()
    values = timer.take()
    assert values["interval_seconds"] == pytest.approx(10.0)
    assert values["step_seconds_p50"] == pytest.approx(3.0)  # of 1, 1, 5, 5
    assert values["step_seconds_p90"] == pytest.approx(5.0)


def test_time_counts_also_when_the_block_fails():
    clock = Clock()
    timer = StepTimer(clock=clock)
    with pytest.raises(OSError), timer.aside("checkpoint"):
        clock.pass_seconds(3)
        raise OSError
    clock.pass_seconds(1)
    timer.step_done()
    assert timer.take()["interval_seconds"] == pytest.approx(1.0)


def test_an_unknown_aside_is_a_mistake():
    with pytest.raises(ValueError, match="checkpoint"), StepTimer().aside("lunch"):
        pass
