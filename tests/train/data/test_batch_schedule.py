"""Rows a step, against a walk over the steps."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_jax.errors import InputError
from train.config import BatchStep
from train.data.batch_schedule import BatchSchedule


def walk(batch, row_length, num_steps):
    """Rows of each step, asked step by step."""
    tokens, rows = 0, []
    for _ in range(num_steps):
        rows.append([entry.rows for entry in batch if entry.after_tokens <= tokens][-1])
        tokens += rows[-1] * row_length
    return rows


def tokens_before(schedule, step):
    return schedule.rows_before(step) * schedule.row_length


@given(
    st.lists(st.tuples(st.integers(1, 60), st.integers(1, 6)), max_size=5),
    st.integers(1, 6),
    st.integers(1, 4),
)
def test_every_step_is_as_in_a_walk(changes, first_rows, row_length):
    batch, after = [BatchStep(0, first_rows)], 0
    for gap, rows in changes:
        after += gap
        batch.append(BatchStep(after, rows))
    schedule = BatchSchedule(tuple(batch), row_length=row_length)
    rows = walk(batch, row_length, 90)
    for step in range(90):
        assert schedule.rows_in(step) == rows[step]
        assert schedule.rows_before(step) == sum(rows[:step])
    for num_tokens in range(0, tokens_before(schedule, 89)):
        steps = schedule.steps_for(num_tokens)
        assert tokens_before(schedule, steps) >= num_tokens
        assert steps == 0 or tokens_before(schedule, steps - 1) < num_tokens


def test_micro_batches_change_with_the_entry_that_names_them():
    batch = (BatchStep(0, 2), BatchStep(8, 2, micro_batches=2), BatchStep(16, 4, micro_batches=4))
    schedule = BatchSchedule(batch, row_length=2)
    assert [schedule.micro_batches_in(step) for step in range(6)] == [1, 1, 2, 2, 4, 4]


def test_the_ramp_of_llama_3():
    """4M tokens a step, 8M after 252M, 16M after 2.87T (arXiv 2407.21783, section 3.4.1), here
    with rows of 8,192 throughout."""
    batch = (BatchStep(0, 512), BatchStep(252_000_000, 1024), BatchStep(2_870_000_000_000, 2048))
    schedule = BatchSchedule(batch, row_length=8192)
    assert [schedule.rows_in(step) for step in (0, 60, 61, 10**5)] == [512, 512, 1024, 1024]
    last = schedule.steps_for(15_600_000_000_000)
    assert schedule.rows_in(last) == 2048
    assert 0 <= tokens_before(schedule, last) - 15_600_000_000_000 < 2**24


@pytest.mark.parametrize(
    ("batch", "complaint"),
    [
        ((), "first entry must have after_tokens 0"),
        ((BatchStep(5, 1),), "first entry must have after_tokens 0"),
        ((BatchStep(0, 1), BatchStep(9, 2), BatchStep(9, 3)), "9 follows 9"),
        ((BatchStep(0, 0),), "rows must be at least 1, not 0"),
        ((BatchStep(0, 6, 4),), "6 rows do not divide into 4 micro-batches"),
        ((BatchStep(0, 6, 0),), "6 rows do not divide into 0 micro-batches"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused(batch, complaint):
    with pytest.raises(InputError, match=complaint):
        BatchSchedule(batch, row_length=8)
    with pytest.raises(InputError, match="row_length must be at least 1"):
        BatchSchedule((BatchStep(0, 1),), row_length=0)
