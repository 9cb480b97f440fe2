"""Numbers without meaning are refused, and what a batch needs is known from its rows."""

import dataclasses

import numpy as np
import pytest

from infer.sampling import (
    GREEDY,
    MAX_LOGIT_BIASES,
    RowSampling,
    SamplingMode,
    SamplingParameters,
    stack_sampling,
)
from llama_jax.errors import InputError


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"temperature": -1.0}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.1}, "top_p"),
        ({"top_k": -1}, "top_k"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**32}, "seed"),
        ({"min_p": -0.1}, "min_p"),
        ({"min_p": 1.1}, "min_p"),
        ({"min_p": float("nan")}, "min_p"),
        ({"repetition_penalty": 0.0}, "repetition_penalty"),
        ({"repetition_penalty": float("inf")}, "repetition_penalty"),
        ({"presence_penalty": 2.1}, "presence_penalty"),
        ({"frequency_penalty": float("nan")}, "frequency_penalty"),
        ({"logit_bias": ((3, 101.0),)}, "logit_bias of id 3"),
        ({"logit_bias": ((3, float("nan")),)}, "logit_bias of id 3"),
        ({"logit_bias": ((-1, 1.0),)}, "logit_bias"),
        ({"logit_bias": ((1, 1.0), (1, 2.0))}, "logit_bias has an id twice"),
        ({"logit_bias": tuple((i, 1.0) for i in range(MAX_LOGIT_BIASES + 1))}, "the most is 300"),
        ({"allowed_ids": ()}, "allowed_ids is empty"),
        ({"allowed_ids": (1, -2)}, "allowed_ids"),
        ({"allowed_ids": (1, True)}, "allowed_ids"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_numbers_without_meaning_are_refused(fields, message):
    with pytest.raises(InputError, match=message) as caught:
        SamplingParameters(**{"temperature": 1.0, **fields})
    assert "\n" not in str(caught.value)


# What a row asks for -> the flag it sets.
ASKED = {
    "top_k": ({"top_k": 3}, "top_k"),
    "top_p": ({"top_p": 0.5}, "top_p"),
    "min_p": ({"min_p": 0.5}, "min_p"),
    "repetition": ({"repetition_penalty": 1.1}, "penalties"),
    "presence": ({"presence_penalty": 0.1}, "penalties"),
    "frequency": ({"frequency_penalty": -0.1}, "penalties"),
    "bias": ({"logit_bias": ((1, 1.0),)}, "bias"),
    "allowed": ({"allowed_ids": (1,)}, "mask"),
}


@pytest.mark.parametrize("fields, flag", ASKED.values(), ids=ASKED)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_batch_computes_what_its_rows_ask_for(fields, flag, temperature):
    """A greedy row obeys penalties, bias and masks, and has no use for truncation."""
    _, mode = stack_sampling([GREEDY, SamplingParameters(temperature, **fields)])
    on = {
        field.name
        for field in dataclasses.fields(mode)
        if field.name != "num_logprobs" and getattr(mode, field.name)
    }
    truncation = {"top_k", "top_p", "min_p"}
    assert on == ({"random", flag} if temperature else {flag} - truncation)
    assert mode.num_logprobs is None


def test_every_field_of_the_parameters_reaches_the_arrays():
    """Except `allowed_ids`, which become a mask of the engine's."""
    row = SamplingParameters(0.5, 0.25, 7, 9, 0.125, 1.5, -1.0, 2.0, ((4, -3.0), (2, 5.0)), (1, 2))
    rows, mode = stack_sampling([GREEDY, row])
    for field in dataclasses.fields(row):
        if field.name not in ("logit_bias", "allowed_ids"):
            assert getattr(rows, field.name)[1] == getattr(row, field.name)
    assert rows.bias_ids[1, :3].tolist() == [4, 2, -1]
    assert rows.bias_values[1, :3].tolist() == [-3, 5, 0]
    assert np.all(rows.bias_ids[0] == -1)
    assert {array.shape[0] for array in rows} == {2} and len(rows) == len(RowSampling._fields)


def test_rows_can_be_stacked_for_a_program_that_does_more():
    larger = SamplingMode(random=True, top_k=True, top_p=False, bias=True, num_logprobs=5)
    rows, mode = stack_sampling([GREEDY, SamplingParameters(1.0, top_k=3)], larger)
    assert mode == larger
    assert rows.bias_ids.shape == (2, MAX_LOGIT_BIASES)
    with pytest.raises(AssertionError, match="does not cover"):
        stack_sampling([SamplingParameters(1.0, top_p=0.5)], larger)


def test_modes_cover_what_they_compute():
    least = SamplingMode(random=False, top_k=False, top_p=False)
    some = SamplingMode(random=True, top_k=False, top_p=True, num_logprobs=0)
    other = SamplingMode(random=True, top_k=True, top_p=False, num_logprobs=5)
    assert some.covers(least) and not least.covers(some)
    assert not some.covers(other) and not other.covers(some)
    both = some | other
    assert both.covers(some) and both.covers(other) and both.num_logprobs == 5
    assert not dataclasses.replace(both, num_logprobs=4).covers(other)
    assert (least | least).num_logprobs is None


def test_a_status_line_says_all_that_does_something():
    assert str(GREEDY) == "greedy"
    assert str(SamplingParameters(0.5, seed=3)) == "temperature 0.5, top_p 1.0, top_k 0"
    row = SamplingParameters(0.5, 0.25, 7, 9, 0.125, 1.5, -1.0, 2.0, ((4, -3.0),), (1, 2))
    assert str(row) == (
        "temperature 0.5, top_p 0.25, top_k 7, min_p 0.125, repetition_penalty 1.5, "
        "presence_penalty -1.0, frequency_penalty 2.0, logit_bias of 1 ids, 2 allowed_ids"
    )
    assert str(dataclasses.replace(row, temperature=0.0)).startswith("greedy, repetition_penalty")
