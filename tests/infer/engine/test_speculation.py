"""Guessing changes how many steps an answer takes, and no bit of it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from infer.engine.drafts import look_back
from infer.engine.engine import Engine
from infer.engine.settings import EVERYTHING, GREEDY_ONLY, SAMPLED, Speculation
from infer.sampling import SamplingParameters
from llama_jax.errors import InputError
from tests.infer.engine.run_engine import (
    CONFIG,
    SETTINGS,
    answers,
    ask,
    compiled_engine,
    random_prompts,
    tiny_params,
)
from tests.infer.engine.test_independence import bits

SMALLER = dataclasses.replace(CONFIG, num_layers=1)
LOOK_BACK = Speculation(3)
WITH_LOGPROBS = dataclasses.replace(SAMPLED, num_logprobs=20)
# Prompts that repeat, so that looking back finds something.
PROMPTS = [prompt * 4 for prompt in random_prompts((2, 5, 11, 20), seed=3)]


def with_draft_model(settings, draft_params):
    settings = dataclasses.replace(settings, speculation=Speculation(3, SMALLER))
    engine = Engine(CONFIG, tiny_params(), settings, draft_params=draft_params)
    engine.compile()
    return engine


def first_layer():
    """A draft model that often agrees: the model without its last layer."""
    params = tiny_params()
    return {**params, "blocks": params["blocks"][:1]}


def requests(seed=0):
    """Answers several times as long as a call may write: in 28 pages, rows lose theirs."""
    sampling = (
        SamplingParameters(0.0),
        SamplingParameters(1.0, seed=seed),
        SamplingParameters(0.6, top_p=0.9, seed=seed + 1),
        SamplingParameters(0.8, top_k=5, seed=seed + 2),
    )
    return [
        ask(prompt, 60 + i, row, num_logprobs=1, min_new_tokens=3, stop_ids=frozenset({5, 9}))
        for i, (prompt, row) in enumerate(zip(PROMPTS, sampling, strict=True))
    ]


@pytest.fixture(scope="module")
def plainly():
    engine = compiled_engine(dataclasses.replace(SETTINGS, modes=(WITH_LOGPROBS,)))
    return [bits(engine, requests(seed)) for seed in range(3)]


@pytest.mark.parametrize("num_pages", [160, 28])
def test_looking_back_changes_no_bit(plainly, num_pages):
    settings = dataclasses.replace(
        SETTINGS, modes=(WITH_LOGPROBS,), speculation=LOOK_BACK, num_pages=num_pages
    )
    engine = compiled_engine(settings)
    assert [bits(engine, requests(seed)) for seed in range(3)] == plainly
    assert (engine.usage().preemptions > 0) == (num_pages == 28)


@pytest.mark.parametrize("num_pages", [160, 28])
def test_a_draft_model_changes_no_bit(plainly, num_pages):
    settings = dataclasses.replace(SETTINGS, modes=(WITH_LOGPROBS,), num_pages=num_pages)
    engine = with_draft_model(settings, first_layer())
    assert [bits(engine, requests(seed)) for seed in range(3)] == plainly
    assert (engine.usage().preemptions > 0) == (num_pages == 28)


def test_a_draft_model_that_is_the_model_is_always_right():
    settings = dataclasses.replace(
        SETTINGS, speculation=Speculation(3, CONFIG), modes=(SAMPLED,), decode_steps=8
    )
    engine = Engine(CONFIG, tiny_params(), settings, draft_params=tiny_params())
    engine.compile()
    drawn = [ask(prompt, 32, SamplingParameters(1.0, seed=4)) for prompt in PROMPTS[:2]]
    plain = compiled_engine(dataclasses.replace(SETTINGS, modes=(SAMPLED,)))
    assert answers(engine, drawn) == answers(plain, drawn)
    # 32 tokens, 4 at a step.
    assert engine.usage().decode_steps == 8


def test_a_text_that_repeats_takes_fewer_steps():
    # Weights of zero: the likeliest token is always 0, and so it repeats.
    params = jax.tree.map(jnp.zeros_like, tiny_params())
    engine = Engine(CONFIG, params, dataclasses.replace(SETTINGS, speculation=LOOK_BACK))
    engine.compile()
    assert answers(engine, [ask((1, 2), 40)]) == [[0] * 40]
    assert engine.usage().decode_steps <= 13


def test_rows_with_penalties_are_decoded_without_guesses():
    settings = dataclasses.replace(SETTINGS, modes=(GREEDY_ONLY, EVERYTHING), speculation=LOOK_BACK)
    penalised = SamplingParameters(0.7, repetition_penalty=1.5, seed=2)
    asked = [ask(PROMPTS[2], 20, penalised), ask(PROMPTS[3], 20)]
    plain = compiled_engine(dataclasses.replace(settings, speculation=None))
    assert answers(compiled_engine(settings), asked) == answers(plain, asked)


def test_the_last_place_of_a_row_leaves_room_for_guesses():
    engine = compiled_engine(dataclasses.replace(SETTINGS, speculation=LOOK_BACK))
    prompt = random_prompts([241])[0]
    assert len(answers(engine, [ask(prompt)])[0]) == 12
    with pytest.raises(InputError, match="over the 253 that a row may have"):
        engine.add(ask((*prompt, 1)))


@pytest.mark.parametrize("num_drafts", [0, 17])
def test_a_senseless_number_of_guesses_is_refused(num_drafts):
    with pytest.raises(InputError, match="drafts: must be from 1 to 16"):
        Speculation(num_drafts)


def test_look_back_finds_what_followed_the_longest_end():
    rng = np.random.default_rng(0)
    history = rng.integers(0, 4, (40, 30)).astype(np.int32)
    lengths = rng.integers(1, 31, 40).astype(np.int32)
    found = np.asarray(look_back(jnp.asarray(history), jnp.asarray(lengths), 3))
    for row, length, drafts in zip(history, lengths, found, strict=True):
        assert drafts.tolist() == expected_drafts(row[:length].tolist(), 3)


def expected_drafts(tokens, num_drafts):
    for size in (3, 2, 1):
        for end in range(len(tokens) - 1, size - 1, -1):
            if size < len(tokens) and tokens[end - size : end] == tokens[-size:]:
                return (tokens[end : end + num_drafts] + [0] * num_drafts)[:num_drafts]
    return [0] * num_drafts
