"""Which token comes out: the order of operations, draws, rows that do not meet, no choice left."""

import dataclasses

import jax
import numpy as np
import pytest

from infer.sampling import (
    GREEDY,
    NOT_FINITE,
    NOTHING_ALLOWED,
    SamplingMode,
    SamplingParameters,
    choose,
    count_rows,
    full_mask,
    mask_of,
    sample,
    stack_sampling,
    truncated_logits,
)
from llama_jax.errors import InputError
from tests.infer.sampling.oracle import adjusted_by_numpy, probabilities_by_numpy

VOCAB = 37


def random_logits(rows: int, vocab: int = VOCAB, seed: int = 0) -> np.ndarray:
    return (3 * np.random.default_rng(seed).standard_normal((rows, vocab))).astype(np.float32)


def test_draws_follow_the_distribution():
    """20,000 positions of one row: frequencies within 4.5 standard deviations of the softmax."""
    num_draws = 20_000
    logits = random_logits(1, vocab=12)
    parameters = SamplingParameters(0.8, top_p=0.95, top_k=9, seed=11)
    rows, mode = stack_sampling([parameters])
    expected = np.asarray(jax.nn.softmax(truncated_logits(logits, rows, mode=mode)))[0]
    rows, mode = stack_sampling([parameters] * num_draws)
    drawn = sample(np.repeat(logits, num_draws, 0), rows, np.arange(num_draws), mode=mode)
    frequency = np.bincount(drawn, minlength=12) / num_draws
    assert np.all(frequency[expected == 0] == 0)
    deviation = np.sqrt(expected * (1 - expected) / num_draws)
    assert np.all(np.abs(frequency - expected) <= 4.5 * deviation)


def test_seeds_and_positions_change_the_draw_and_nothing_else_does():
    logits = np.repeat(random_logits(1), 64, 0)
    at = np.full(64, 5)
    by_seed = [SamplingParameters(2.0, seed=seed) for seed in range(64)]
    rows, mode = stack_sampling(by_seed)
    first = np.asarray(sample(logits, rows, at, mode=mode))
    assert len(set(first.tolist())) > 10
    assert len(set(np.asarray(sample(logits, rows, at + 1, mode=mode) == first).tolist())) == 2
    rows, mode = stack_sampling([by_seed[3]] * 64)
    same_seed = np.asarray(sample(logits, rows, np.arange(64), mode=mode))
    assert len(set(same_seed.tolist())) > 10
    assert same_seed[5] == first[3]


def test_a_row_does_not_depend_on_its_batch():
    """Alone, or beside rows that make the batch compute top-k, top-p and noise."""
    logits = random_logits(5, vocab=500)
    positions = np.arange(5, dtype=np.int32)
    parameters = [
        GREEDY,
        SamplingParameters(1.5, seed=2**32 - 1),
        SamplingParameters(1.5, top_k=7, seed=1),
        SamplingParameters(1.5, top_p=0.8, seed=2),
        SamplingParameters(0.0, top_p=0.1, top_k=1, seed=2),
    ]
    rows, mode = stack_sampling(parameters)
    together = sample(logits, rows, positions, mode=mode)
    for index, row in enumerate(parameters):
        rows, mode = stack_sampling([row])
        here = slice(index, index + 1)
        assert sample(logits[here], rows, positions[here], mode=mode)[0] == together[index]


def test_greedy_computes_nothing_else():
    assert stack_sampling([GREEDY, SamplingParameters(0.0, top_p=0.5, top_k=3)])[1] == SamplingMode(
        random=False, top_k=False, top_p=False
    )
    logits = random_logits(4)
    rows, mode = stack_sampling([GREEDY] * 4)
    np.testing.assert_array_equal(
        sample(logits, rows, np.zeros(4, np.int32), mode=mode), logits.argmax(-1)
    )
    program = jax.jit(lambda *a: sample(*a, mode=mode)).lower(logits, rows, np.zeros(4, np.int32))
    assert "while" not in program.as_text()


def test_draws_have_not_changed():
    """The tokens of a seed are a promise: answers can be made again with a later version."""
    logits = random_logits(6, vocab=500)
    parameters = [
        GREEDY,
        SamplingParameters(1.5, seed=2**32 - 1),
        SamplingParameters(1.5, top_k=7, seed=1),
        SamplingParameters(1.5, top_p=0.8, seed=2),
        SamplingParameters(0.7, top_p=0.9, top_k=50, seed=3),
        SamplingParameters(3.0, seed=4),
    ]
    rows, mode = stack_sampling(parameters)
    drawn = [sample(logits, rows, np.full(6, at), mode=mode) for at in (0, 1, 77, 130_000)]
    np.testing.assert_array_equal(
        drawn,
        [
            [219, 136, 294, 264, 27, 490],
            [219, 479, 247, 186, 208, 87],
            [219, 220, 94, 424, 234, 472],
            [219, 63, 51, 148, 208, 381],
        ],
    )


def everything(seed: int, temperature: float) -> SamplingParameters:
    return SamplingParameters(
        temperature,
        top_p=0.9,
        top_k=20,
        min_p=0.01,
        seed=seed,
        repetition_penalty=1.3,
        presence_penalty=0.5,
        frequency_penalty=0.7,
        logit_bias=((3, 4.0), (5, -6.0), (VOCAB + 4, 100.0)),
        allowed_ids=tuple(range(2, 33)),
    )


def test_all_together_follow_the_definition():
    """20,000 draws within 4.5 standard deviations of numpy's distribution, and the greedy choice
    of the same row is numpy's greatest."""
    num_draws, prompt, new, forbidden = 20_000, (3, 8, 9), (9, 12, 12), (2, 20)
    logits = random_logits(1)
    parameters = everything(11, 1.2)
    allowed = mask_of(parameters.allowed_ids, VOCAB)

    def chosen(parameters, count):
        rows, mode = stack_sampling([parameters] * count)
        counts = count_rows([prompt] * count, [new] * count, vocab_size=VOCAB)
        return np.asarray(
            choose(
                np.repeat(logits, count, 0),
                rows,
                np.arange(count),
                mode=mode,
                counts=counts,
                mask=np.tile(allowed, (count, 1)),
                forbidden_ids=np.tile(np.array([*forbidden, -1], np.int32), (count, 1)),
                forbid=np.ones(count, bool),
            ).tokens
        )

    in_reach = dataclasses.replace(parameters, logit_bias=parameters.logit_bias[:2])
    adjusted = adjusted_by_numpy(logits[0], in_reach, prompt=prompt, new=new, forbidden=forbidden)
    expected = probabilities_by_numpy(adjusted, parameters)
    assert 3 < np.sum(expected > 0) < 20
    frequency = np.bincount(chosen(parameters, num_draws), minlength=VOCAB) / num_draws
    assert np.all(frequency[expected == 0] == 0)
    deviation = np.sqrt(expected * (1 - expected) / num_draws)
    assert np.all(np.abs(frequency - expected) <= 4.5 * deviation)
    greedy = dataclasses.replace(parameters, temperature=0.0)
    assert chosen(greedy, 2).tolist() == [adjusted.argmax()] * 2


def test_a_row_keeps_its_bits_beside_rows_that_ask_for_more():
    """Tokens and log-probabilities of a batch, computed by the least program and by the largest."""
    B, vocab = 8, 3000
    logits, positions = random_logits(B, vocab), np.arange(B, dtype=np.int32)
    plain = [
        GREEDY,
        SamplingParameters(1.5, seed=1),
        SamplingParameters(1.5, top_k=7, seed=2),
        SamplingParameters(1.5, top_p=0.8, seed=3),
        SamplingParameters(1.5, min_p=0.01, seed=4),
        SamplingParameters(1.5, top_p=0.8, min_p=0.1, seed=5),
    ]
    least = SamplingMode(True, True, True, True, num_logprobs=3)
    rows, _ = stack_sampling([*plain, GREEDY, GREEDY], least)
    alone = choose(logits, rows, positions, mode=least)

    beside = [*plain, everything(6, 0.0), everything(7, 1.0)]
    largest = SamplingMode(True, True, True, True, True, True, True, 20)
    rows, _ = stack_sampling(beside, largest)
    counts = count_rows([[1, 2]] * B, [[2, 3]] * B, vocab_size=vocab)
    masks = [full_mask(vocab)] * len(plain) + [mask_of(range(2, 33), vocab)] * 2
    together = choose(
        logits,
        rows,
        positions,
        mode=largest,
        counts=counts,
        mask=np.stack(masks),
        forbidden_ids=np.tile(np.arange(3000, dtype=np.int32)[:4], (B, 1)),
        forbid=np.arange(B) >= len(plain),
    )
    kept = slice(0, len(plain))
    np.testing.assert_array_equal(together.tokens[kept], alone.tokens[kept])
    np.testing.assert_array_equal(together.logprobs[kept], alone.logprobs[kept])
    np.testing.assert_array_equal(together.top_ids[:, :3], alone.top_ids)
    np.testing.assert_array_equal(together.top_logprobs[:, :3], alone.top_logprobs)
    assert np.all(np.asarray(together.tokens[len(plain) :]) >= 4)
    assert np.all(np.asarray(together.tokens[len(plain) :]) < 33)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_row_without_a_choice_says_so_and_spoils_no_other(temperature):
    logits = random_logits(5)
    logits[1, 3] = np.nan
    logits[2] = np.inf
    logits[3] = -np.inf
    parameters = SamplingParameters(temperature, top_p=0.9, min_p=0.1, allowed_ids=(3, 5))
    rows, mode = stack_sampling([parameters] * 5)
    mode = dataclasses.replace(mode, num_logprobs=2)
    choice = choose(
        logits,
        rows,
        np.zeros(5, np.int32),
        mode=mode,
        mask=np.tile(mask_of((3, 5), VOCAB), (5, 1)),
        forbidden_ids=np.tile(np.array([3, 5], np.int32), (5, 1)),
        forbid=np.array([True, False, False, False, False]),
    )
    tokens = np.asarray(choice.tokens)
    assert tokens[:4].tolist() == [NOTHING_ALLOWED, NOT_FINITE, NOT_FINITE, NOT_FINITE]
    assert tokens[4] in (3, 5)
    assert np.isnan(choice.logprobs[:4]).all() and np.isfinite(choice.logprobs[4])


def test_ids_are_forbidden_only_in_rows_that_say_so():
    logits = np.tile(np.arange(4, dtype=np.float32), (3, 1))
    rows, mode = stack_sampling([GREEDY] * 3)
    chosen = choose(
        logits,
        rows,
        np.zeros(3, np.int32),
        mode=mode,
        forbidden_ids=np.array([[3, -1], [3, 2], [3, 2]], np.int32),
        forbid=np.array([True, True, False]),
    )
    assert chosen.tokens.tolist() == [2, 1, 3]
    assert chosen.logprobs.shape == (0,) and chosen.top_ids.shape == (3, 0)


def test_sample_refuses_what_it_cannot_do():
    for fields in ({"presence_penalty": 1.0}, {"allowed_ids": (1,)}):
        rows, mode = stack_sampling([SamplingParameters(0.0, **fields)])
        with pytest.raises(InputError, match="need the engine"):
            sample(random_logits(1), rows, np.zeros(1, np.int32), mode=mode)


def test_sample_obeys_a_bias():
    rows, mode = stack_sampling([SamplingParameters(0.0, logit_bias=((7, 100.0),)), GREEDY])
    logits = random_logits(2)
    chosen = sample(logits, rows, np.zeros(2, np.int32), mode=mode)
    assert chosen.tolist() == [7, logits[1].argmax()]
