"""Stages built from short descriptions: ramps, lengths, mixtures."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_jax.config import Llama3Scaling
from llama_jax.errors import InputError
from train.config import BatchStep, Gate
from train.data.batch_schedule import BatchSchedule
from train.schedules import Linear
from train.stages.anneal import anneal_stage, upweighted
from train.stages.long_context import (
    LongContextStep,
    length_shares,
    long_context_stages,
    scaling_for,
)
from train.stages.mixtures import mixture_of
from train.stages.pretrain import RampStep, pretrain_stages

GATE = Gate("short", 0.01, 1.0, 4, 10, 1, "stop")
RATE = Linear(1.0, 0.0)


def stages_of(*ramp, num_tokens=1000):
    return pretrain_stages(
        tuple(RampStep(*step) for step in ramp),
        num_tokens=num_tokens,
        learning_rate=RATE,
        mix={"a": 3.0, "b": 1.0},
        data="d",
    )


@given(st.data())
def test_a_ramp_keeps_its_tokens_a_step(data):
    """Whatever stage a step of the pretraining falls into, it has the tokens that the ramp says."""
    lengths = data.draw(st.lists(st.sampled_from([1, 2, 4, 8]), min_size=1, max_size=4).map(sorted))
    starts = sorted(data.draw(st.sets(st.integers(1, 90), min_size=len(lengths) - 1,
                                      max_size=len(lengths) - 1)))  # fmt: skip
    # Multiples of every step, so that no step crosses a boundary.
    ramp = [
        RampStep(after * 64, length, length * data.draw(st.sampled_from([1, 2, 4, 8])))
        for after, length in zip([0, *starts], lengths, strict=True)
    ]
    stages = pretrain_stages(
        tuple(ramp), num_tokens=100 * 64, learning_rate=RATE, mix={"a": 1.0}, data="d"
    )
    assert sum(stage.num_tokens for stage in stages) == 6400
    seen = 0
    for stage in stages:
        schedule = BatchSchedule(stage.batch, row_length=stage.row_length)
        for step in range(schedule.steps_for(stage.num_tokens)):
            wanted = [entry for entry in ramp if entry.after_tokens <= seen][-1]
            tokens = schedule.rows_in(step) * stage.row_length
            assert (tokens, stage.row_length) == (wanted.tokens_per_step, wanted.row_length)
            seen += tokens
    assert seen == 6400


def test_a_step_is_split_so_that_no_micro_batch_has_more_tokens_than_asked_for():
    (stage,) = pretrain_stages(
        (RampStep(0, 4, 8), RampStep(64, 4, 32), RampStep(128, 4, 96)),
        num_tokens=1000,
        learning_rate=RATE,
        mix={"a": 1.0},
        data="d",
        tokens_at_once=16,
    )
    assert stage.batch == (BatchStep(0, 2, 1), BatchStep(64, 8, 2), BatchStep(128, 24, 6))


@pytest.mark.parametrize(
    "ramp",
    [
        [],
        [(5, 4, 8)],
        [(0, 4, 8), (0, 4, 16)],
        [(0, 4, 8), (1000, 4, 16)],
        [(0, 4, 6)],
        [(0, 4, 8), (10, 8, 8), (20, 4, 8)],
    ],
    ids=["empty", "not from 0", "not ascending", "past the end", "part of a row", "length again"],
)
def test_a_ramp_that_cannot_be_kept_is_refused(ramp):
    with pytest.raises(InputError, match="^batch ramp: "):
        stages_of(*ramp)


def test_rows_of_a_kind_and_a_length_lie_in_a_folder_of_their_own():
    paths = [(s.name, s.path, s.weight) for s in mixture_of({"a": 3.0}, data="d", row_length=16)]
    assert paths == [("a", "d/16/a", 3.0)]
    stage = long_context_stages(
        (LongContextStep(8, 10), LongContextStep(16, 10, longest_share=0.75)),
        tokens_per_step=16,
        first_rate=1.0,
        last_rate=0.5,
        mix={"a": 0.8, "b": 0.2},
        data="d",
        gate=GATE,
    )[1]
    assert [(s.name, s.path, s.weight) for s in stage.mixture] == [
        ("a_to_8", "d/16/a_to_8", 0.2),
        ("a_to_16", "d/16/a_to_16", 0.6),
        ("b_to_8", "d/16/b_to_8", 0.05),
        ("b_to_16", "d/16/b_to_16", 0.15),
    ]


def test_the_longest_documents_have_their_share_and_the_rest_is_even():
    assert length_shares([4], 0.6) == {4: 1.0}
    assert length_shares([4, 8, 16], 0.6) == pytest.approx({4: 0.2, 8: 0.2, 16: 0.6})


def test_the_rate_falls_along_one_line_over_all_steps():
    stages = long_context_stages(
        (LongContextStep(8, 100), LongContextStep(16, 300)),
        tokens_per_step=16,
        first_rate=1.0,
        last_rate=0.2,
        mix={"a": 1.0},
        data="d",
        gate=GATE,
    )
    assert [stage.learning_rate for stage in stages] == [Linear(1.0, 0.8), Linear(0.8, 0.2)]
    assert [stage.gate for stage in stages] == [GATE, GATE]
    assert [stage.batch[0].rows for stage in stages] == [2, 1]


def test_scaling_grows_with_the_length_up_to_the_published_factor():
    assert scaling_for(4096) is None and scaling_for(8192) is None
    assert scaling_for(16_384) == Llama3Scaling(2.0, 1.0, 4.0, 8192)
    assert scaling_for(131_072) == scaling_for(1 << 20) == Llama3Scaling(8.0, 1.0, 4.0, 8192)


def test_upweighting_keeps_a_whole():
    mix = upweighted({"a": 0.5, "b": 0.5}, {"b": 0.5, "c": 0.5}, share=0.4)
    assert mix == {"a": 0.3, "b": 0.5, "c": 0.2}


def test_annealing_ends_at_zero():
    stage = anneal_stage(
        num_tokens=100, row_length=4, rows=5, start_rate=0.5, mix={"a": 1.0}, data="d",
        average_last=3,
    )  # fmt: skip
    assert stage.learning_rate == Linear(0.5, 0.0)
    assert (stage.name, stage.batch[0].rows, stage.average_last) == ("anneal", 5, 3)
