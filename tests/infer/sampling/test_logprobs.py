"""Log-probabilities are those of the model's own distribution, of answers and of prompts."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax

from infer.sampling import (
    MAX_LOGPROBS,
    SamplingParameters,
    choose,
    prompt_logprobs,
    stack_sampling,
)
from llama_jax.config import TINY

CONFIG = dataclasses.replace(TINY, vocab_size=200)
VOCAB = 190  # of the tokenizer: the model's last ten rows are padding
HEAD = "embedding" if CONFIG.tied_embeddings else "head"
_scored = jax.jit(prompt_logprobs, static_argnames=("config", "vocab_size", "num_top"))


def test_of_the_chosen_and_the_likeliest_whatever_the_row_asked_for():
    scores = (3 * np.random.default_rng(0).standard_normal((3, 500))).astype(np.float32)
    parameters = [
        SamplingParameters(0.0),
        SamplingParameters(5.0, top_k=100, seed=3),
        SamplingParameters(0.0, logit_bias=((4, 100.0),)),
    ]
    rows, mode = stack_sampling(parameters)
    mode = dataclasses.replace(mode, num_logprobs=MAX_LOGPROBS)
    choice = choose(scores, rows, np.zeros(3, np.int32), mode=mode)
    assert choice.tokens[2] == 4
    expected = log_softmax(scores.astype(np.float64), axis=-1)
    chosen = expected[np.arange(3), choice.tokens]
    # float32 against float64, a logarithm of 500 terms and a difference of numbers near 10.
    np.testing.assert_allclose(choice.logprobs, chosen, rtol=1e-6, atol=2e-6)
    order = np.argsort(-expected, axis=-1, kind="stable")[:, :MAX_LOGPROBS]
    np.testing.assert_array_equal(choice.top_ids, order)
    np.testing.assert_allclose(
        choice.top_logprobs, np.take_along_axis(expected, order, -1), rtol=1e-6, atol=2e-6
    )


@pytest.mark.parametrize("vocab_size", [200, 5000])
def test_a_row_keeps_its_bits_whatever_the_number_of_rows(vocab_size):
    """`jax.nn.logsumexp` differs in its last bit between 16 and 32 rows of 200."""
    num_rows = 32
    chooser = np.random.default_rng(0)
    scores = (3 * chooser.standard_normal((num_rows, vocab_size))).astype(np.float32)
    row = SamplingParameters(1.5, top_p=0.7, seed=3)
    _, mode = stack_sampling([row])
    mode = dataclasses.replace(mode, num_logprobs=2)

    def chosen(batch: int):
        rows, _ = stack_sampling([row] * batch, mode)
        parts = [
            choose(scores[first : first + batch], rows, np.zeros(batch, np.int32), mode=mode)
            for first in range(0, num_rows, batch)
        ]
        return jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)

    together = chosen(num_rows)
    for batch in (1, 16):
        jax.tree.map(np.testing.assert_array_equal, chosen(batch), together)


def test_equal_logits_come_in_the_order_of_their_ids():
    rows, mode = stack_sampling([SamplingParameters(0.0)])
    mode = dataclasses.replace(mode, num_logprobs=4)
    choice = choose(np.zeros((1, 9), np.float32), rows, np.zeros(1, np.int32), mode=mode)
    assert choice.tokens[0] == 0 and choice.top_ids[0].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("shape", [(1, 1), (2, 7), (3, 128), (1, 300)], ids=str)
def test_prompts_are_scored_as_by_a_full_log_softmax(shape):
    chooser = np.random.default_rng(1)
    head = chooser.standard_normal((CONFIG.vocab_size, CONFIG.model_dim)).astype(np.float32) / 3
    hidden = chooser.standard_normal((*shape, CONFIG.model_dim)).astype(np.float32)
    targets = chooser.integers(0, VOCAB, shape).astype(np.int32)
    targets[:, -1] = -1
    scored = _scored({HEAD: head}, hidden, targets, config=CONFIG, vocab_size=VOCAB, num_top=5)

    full = np.einsum("RTD,VD->RTV", hidden.astype(np.float64), head)[..., :VOCAB]
    expected = log_softmax(full, axis=-1)
    of_targets = np.take_along_axis(expected, np.maximum(targets, 0)[..., None], -1)[..., 0]
    assert np.isnan(scored.logprobs[:, -1]).all()
    # float32 against float64: products of D terms and a sum of 190, each near 10.
    tolerance = {"rtol": 1e-6, "atol": 1e-5}
    np.testing.assert_allclose(scored.logprobs[:, :-1], of_targets[:, :-1], **tolerance)
    order = np.argsort(-full, axis=-1, kind="stable")[..., :5]
    np.testing.assert_allclose(
        scored.top_logprobs, np.take_along_axis(expected, order, -1), **tolerance
    )
    np.testing.assert_array_equal(scored.top_ids, order)
    assert scored.top_ids.dtype == jnp.int32


def test_without_alternatives_there_are_none():
    hidden = np.ones((2, 3, CONFIG.model_dim), np.float32)
    head = np.ones((CONFIG.vocab_size, CONFIG.model_dim), np.float32)
    targets = np.zeros((2, 3), np.int32)
    scored = _scored({HEAD: head}, hidden, targets, config=CONFIG, vocab_size=VOCAB, num_top=0)
    assert scored.logprobs.shape == (2, 3) and scored.top_ids.shape == (2, 3, 0)


def test_memory_does_not_grow_with_the_prompt():
    """The logits of all tokens at once would be the largest thing there is."""
    config = dataclasses.replace(TINY, vocab_size=20_000)
    params = {HEAD: jax.ShapeDtypeStruct((20_000, config.model_dim), jnp.float32)}

    def temporary_bytes(length: int) -> int:
        hidden = jax.ShapeDtypeStruct((2, length, config.model_dim), jnp.float32)
        targets = jax.ShapeDtypeStruct((2, length), jnp.int32)
        lowered = _scored.lower(
            params, hidden, targets, config=config, vocab_size=20_000, num_top=5
        )
        return lowered.compile().memory_analysis().temp_size_in_bytes

    all_logits = 2 * 2048 * 20_000 * 4
    assert temporary_bytes(2048) < all_logits / 8
    # What grows is the hidden states and the results.
    growth = temporary_bytes(2048) - temporary_bytes(256)
    assert growth < 4 * 2 * 2048 * (2 * config.model_dim + 32)
