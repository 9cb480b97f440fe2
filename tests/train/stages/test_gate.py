"""The gate between two stages, a pure function of numbers."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from train.config import Gate
from train.stages.gate import decide_gate


def gate(on_failure="stop", max_extra_rounds=2):
    return Gate("general", 0.01, 0.9, 10, 1000, max_extra_rounds, on_failure)


def decide(gate, loss=2.0, found=1.0, rounds=0):
    return decide_gate(
        gate, short_loss=loss, baseline=2.0, needle_accuracy=found, rounds_done=rounds
    ).verdict


@pytest.mark.parametrize(
    "loss, found, passes",
    [
        (2.0, 1.0, True),
        (1.5, 0.9, True),  # better than before, and just enough needles
        (2.009, 0.9, True),
        (2.011, 1.0, False),
        (2.0, 0.89, False),
        (3.0, 0.0, False),
        (math.nan, 1.0, False),
        (math.inf, 1.0, False),
        (2.0, math.nan, False),
    ],
)
def test_both_must_hold(loss, found, passes):
    assert (decide(gate(), loss, found) == "pass") is passes


@pytest.mark.parametrize("on_failure", ["stop", "continue"])
def test_after_the_last_round_the_config_decides(on_failure):
    said = [decide(gate(on_failure), found=0.0, rounds=rounds) for rounds in range(4)]
    assert said == ["extra", "extra", on_failure, on_failure]
    assert decide(gate(on_failure, max_extra_rounds=0), found=0.0) == on_failure
    assert decide(gate(on_failure), rounds=5) == "pass"


@given(
    loss=st.floats(0, 20), better=st.floats(0, 5), found=st.floats(0, 1), more=st.floats(0, 1),
    rounds=st.integers(0, 3),
)  # fmt: skip
def test_doing_better_never_closes_the_gate(loss, better, found, more, rounds):
    if decide(gate(), loss, found, rounds) == "pass":
        assert decide(gate(), loss - better, min(found + more, 1.0), rounds) == "pass"


def test_the_reason_has_the_numbers():
    reason = decide_gate(
        gate(), short_loss=2.5, baseline=2.0, needle_accuracy=0.8, rounds_done=1
    ).reason
    assert reason == (
        "general loss 2.5000, +0.5000 from 2.0000 (at most +0.01); needles found 80.0% "
        "(at least 90.0%); round 1 of 2"
    )
