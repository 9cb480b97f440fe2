"""The score of a verdict: where it is read, and what bounds it."""

import math

import pytest

from infer.answers import AnswerDelta, CollectedAnswer, LikelyToken, TextLogprob
from infer.guard.judge import Judge, unsafe_probability
from infer.loaded_model import load_model
from llama_jax.errors import InputError
from llama_jax.safety import GuardPolicy, LlamaGuard, Turn


def chosen(text, *top):
    """A token and the likeliest ones, as pairs of text and probability."""
    likely = tuple(LikelyToken(0, t, t.encode(), math.log(p)) for t, p in top)
    return TextLogprob(0, text, text.encode(), likely[0].logprob, likely)


SAFE = chosen("safe", ("safe", 0.75), ("unsafe", 0.125), ("maybe", 0.0625))


@pytest.mark.parametrize(
    "logprobs, expected",
    [
        ([SAFE], 0.125),
        ([chosen("\n\n", ("\n\n", 0.9), ("unsafe", 0.05)), SAFE], 0.125),
        ([chosen("unsafe", ("unsafe", 0.5), (" unsafe", 0.25), ("safe", 0.2)), SAFE], 0.75),
        ([chosen("safe", ("safe", 0.99), ("maybe", 0.002))], 0.002),  # its bound
        ([chosen("safe", ("safe", 0.99), ("unsafer", 0.001))], 0.001),
        ([chosen("\n", ("\n", 0.9))], None),
        ([], None),
    ],
    ids=["first", "after line breaks", "both spellings", "bound", "other word", "nothing", "empty"],
)
def test_the_probability_of_unsafe_where_the_verdict_begins(logprobs, expected):
    assert unsafe_probability(logprobs, b"unsafe") == pytest.approx(expected)


@pytest.fixture(scope="module")
def judge(guard_checkpoint):
    return Judge(
        LlamaGuard(GuardPolicy()), load_model(guard_checkpoint), max_length=2048, model="guard"
    )


def answer(text, finish):
    collected = CollectedAnswer()
    collected.add(AnswerDelta(0, 0, text=text, finish_reason=finish))
    return collected


def test_an_answer_that_the_limit_ended_is_unsafe(judge):
    assert judge.judgement(answer("safe", "stop")).verdict.is_safe
    cut = judge.judgement(answer("safe", "length"))
    assert not cut.verdict.is_safe and cut.score is None
    assert cut.fields()["problem"] == "the answer was cut off: 'safe'"


def test_there_is_room_for_the_longest_verdict_and_a_long_dialog_is_refused(judge):
    request = judge.request([Turn("user", "Hi")])
    longest = "\n\nunsafe\n" + ",".join(f"S{number}" for number in range(1, 15))
    assert request.max_new_tokens == len(longest) + 8  # a byte is a token
    assert request.num_logprobs == 20 and request.sampling.temperature == 0
    room = 2048 - request.max_new_tokens - len(request.prompt)
    assert len(judge.request([Turn("user", "Hi" + "x" * room)]).prompt) == 2048 - len(longest) - 8
    with pytest.raises(InputError, match="which reads at most"):
        judge.request([Turn("user", "Hi" + "x" * (room + 1))])
