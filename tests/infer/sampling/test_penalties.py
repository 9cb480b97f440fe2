"""Penalties and biases against transformers and against numpy."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infer.sampling import SamplingParameters, count_chosen, count_rows, stack_sampling
from infer.sampling.bias import biased
from infer.sampling.penalties import penalised
from tests.infer.sampling.oracle import adjusted_by_numpy

VOCAB = 23
_biased, _penalised = jax.jit(biased), jax.jit(penalised)
ids = st.lists(st.integers(0, VOCAB - 1), max_size=12)


def random_logits(rows: int, seed: int = 0) -> np.ndarray:
    return (3 * np.random.default_rng(seed).standard_normal((rows, VOCAB))).astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(
    prompt=ids,
    new=ids,
    repetition=st.floats(0.01, 100),
    presence=st.floats(-2, 2),
    frequency=st.floats(-2, 2),
    bias=st.dictionaries(st.integers(0, VOCAB - 1), st.floats(-100, 100), max_size=5),
)
def test_penalties_and_biases_equal_numpy(prompt, new, repetition, presence, frequency, bias):
    parameters = SamplingParameters(
        1.0,
        repetition_penalty=repetition,
        presence_penalty=presence,
        frequency_penalty=frequency,
        logit_bias=tuple(bias.items()),
    )
    logits = random_logits(2)
    rows, _ = stack_sampling([parameters, SamplingParameters(1.0, logit_bias=((0, 1.0),))])
    counts = count_rows([prompt, prompt], [new, new], vocab_size=VOCAB)
    ours = np.asarray(_penalised(_biased(logits, rows), rows, counts))
    expected = adjusted_by_numpy(logits[0], parameters, prompt=prompt, new=new)
    # Five roundings of float32, and a bias that cancels a logit leaves a little of it, which a
    # penalty multiplies by up to 100.
    np.testing.assert_allclose(ours[0], expected, rtol=1e-6, atol=1e-6 * 100 * 100)
    untouched = logits[1] + np.eye(VOCAB, dtype=np.float32)[0]
    np.testing.assert_array_equal(ours[1], untouched)


@pytest.mark.parametrize("penalty", [0.5, 1.2, 2.0])
def test_repetition_penalty_is_transformers(penalty):
    torch = pytest.importorskip("torch")
    processors = pytest.importorskip("transformers").generation.logits_process
    logits = random_logits(3)
    prompts, answers = [[1, 2, 2], [5, 5, 5], [7, 8, 9]], [[3, 1], [22, 0], [9, 9]]
    had = torch.tensor([prompt + answer for prompt, answer in zip(prompts, answers, strict=True)])
    expected = processors.RepetitionPenaltyLogitsProcessor(penalty)(
        had, torch.from_numpy(logits.copy())
    )
    rows, mode = stack_sampling([SamplingParameters(0.0, repetition_penalty=penalty)] * 3)
    assert mode.penalties
    counts = count_rows(prompts, answers, vocab_size=VOCAB)
    # One division or product each; a compiler may divide by multiplying with the reciprocal.
    np.testing.assert_allclose(_penalised(logits, rows, counts), expected, rtol=2e-7)


def test_logit_bias_is_transformers_sequence_bias():
    torch = pytest.importorskip("torch")
    processors = pytest.importorskip("transformers").generation.logits_process
    logits = random_logits(2)
    bias = ((3, 2.5), (20, -7.0), (0, 100.0))
    processor = processors.SequenceBiasLogitsProcessor({(token,): value for token, value in bias})
    expected = processor(torch.zeros((2, 1), dtype=torch.long), torch.from_numpy(logits.copy()))
    rows, _ = stack_sampling([SamplingParameters(0.0, logit_bias=bias)] * 2)
    np.testing.assert_array_equal(_biased(logits, rows), expected)


def test_presence_and_frequency_look_at_the_answer_only():
    """OpenAI's formula: logit - count * frequency - (count > 0) * presence."""
    logits = np.zeros((1, 4), np.float32)
    row = SamplingParameters(0.0, presence_penalty=0.5, frequency_penalty=0.25)
    rows, _ = stack_sampling([row])
    counts = count_rows([[0, 1]], [[1, 2, 2, 2]], vocab_size=4)
    assert _penalised(logits, rows, counts)[0].tolist() == [0, -0.75, -1.25, 0]


def test_counting_on_the_device_is_counting_on_the_host():
    prompts, answers = [[1, 2], [3, 99]], [[4, 4, 5], [6, 6, 6]]
    counts = count_rows(prompts, [[], []], vocab_size=VOCAB)
    counting = jax.jit(count_chosen)
    for tokens in np.array(answers).T:
        counts = counting(counts, tokens)
    # Rows that are done, and the sentinels of `choose`.
    for token in (-1, -2, -3):
        counts = counting(counts, np.array([token, token]))
    expected = count_rows(prompts, answers, vocab_size=VOCAB)
    jax.tree.map(np.testing.assert_array_equal, counts, expected)
    assert expected.prompt.sum() == 3 and expected.new.sum() == 6
