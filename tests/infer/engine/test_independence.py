"""A row's answer depends on its request alone: the same bits in any company, order and place.

Log-probabilities are compared as they are: they are 53-bit copies of what the device computed from
every number before them.
"""

import dataclasses
import random

import pytest

from infer.engine.settings import EVERYTHING
from infer.sampling import SamplingParameters
from tests.infer.engine.run_engine import SETTINGS, ask, compiled_engine, random_prompts, run

LENGTHS = (1, 2, 9, 16, 17, 65, 130, 40)
WITH_LOGPROBS = dataclasses.replace(SETTINGS, modes=(EVERYTHING,))


def requests(seed):
    sampling = (
        SamplingParameters(0.0),
        SamplingParameters(1.0, seed=seed),
        SamplingParameters(0.8, top_p=0.9, top_k=50, seed=seed + 1),
        SamplingParameters(1.2, min_p=0.05, repetition_penalty=1.3, seed=seed + 2),
    )
    return [
        ask(prompt, num_tokens=10 + i, sampling=sampling[i % 4], num_logprobs=2)
        for i, prompt in enumerate(random_prompts(LENGTHS, seed))
    ]


def bits(engine, asked):
    """Tokens and log-probabilities of each answer."""
    return [
        (
            tuple(token for progress in told for token in progress.tokens),
            tuple(entry for progress in told for entry in progress.logprobs),
        )
        for told in run(engine, asked)
    ]


@pytest.fixture(scope="module")
def alone():
    """What each request gets when nobody else is there."""
    engine = compiled_engine(WITH_LOGPROBS)
    return [bits(engine, [request])[0] for request in requests(0)]


def test_company_and_order_change_no_bit(alone):
    engine = compiled_engine(WITH_LOGPROBS)
    assert bits(engine, requests(0)) == alone
    mixed = [*enumerate(requests(0)), *((None, other) for other in requests(9))]
    random.Random(1).shuffle(mixed)
    told = bits(engine, [request for _, request in mixed])
    for (index, _), answer in zip(mixed, told, strict=True):
        assert index is None or answer == alone[index]


@pytest.mark.parametrize(
    "changes",
    [
        {"row_buckets": (8,), "decode_steps": 7},
        {"page_size": 16, "num_pages": 80},
        {"num_pages": 33, "row_buckets": (8,), "prefix_sharing": False},
        {"prefill_calls": 1, "prefill_lengths": (64,)},
    ],
    ids=lambda changes: "-".join(changes),
)
def test_sizes_and_lost_pages_change_no_bit(alone, changes):
    engine = compiled_engine(dataclasses.replace(WITH_LOGPROBS, **changes))
    before = engine.usage().preemptions
    long = [dataclasses.replace(request, max_new_tokens=40) for request in requests(0)]
    assert bits(engine, requests(0)) == alone
    told = bits(engine, long)
    assert [(tokens[: 10 + i], entries[: 10 + i]) for i, (tokens, entries) in enumerate(told)] == (
        alone
    )
    if "num_pages" in changes and changes["num_pages"] == 33:
        assert engine.usage().preemptions > before


def test_shared_pages_change_no_bit(alone):
    engine = compiled_engine(WITH_LOGPROBS)
    before = engine.usage().shared_tokens
    twice = [request for request in requests(0) for _ in range(2)]
    assert bits(engine, twice) == [answer for answer in alone for _ in range(2)]
    assert engine.usage().shared_tokens > before
