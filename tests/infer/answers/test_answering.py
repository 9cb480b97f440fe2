"""Answers in text over a scripted engine: what is shown, when, and what is counted."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infer.answers import Answering, AnswerRequest, CollectedAnswer
from infer.sampling import GREEDY
from llama_jax.errors import InputError

from .byte_tokenizer import SPECIAL, byte_tokenizer
from .scripted_engine import ScriptedEngine

TOKENIZER = byte_tokenizer()
BOS, EOT, EOM, PYTHON_TAG = (TOKENIZER.special_tokens[text] for text in SPECIAL)
REQUEST = AnswerRequest(
    prompt=(BOS, 1, 2), sampling=GREEDY, max_new_tokens=100, eos_ids=frozenset({EOT, EOM})
)


def answers(scripts, request=REQUEST, *, tokens_per_step=3, **fields):
    """Each sample's deltas, for one request with a sample for each script."""
    engine = ScriptedEngine(scripts, tokens_per_step=tokens_per_step)
    answering = Answering(engine, TOKENIZER)
    request = dataclasses.replace(request, n=len(scripts), **fields)
    answer_id = answering.add(request)
    deltas = [[] for _ in scripts]
    while not answering.is_idle:
        for delta in answering.step():
            assert delta.answer_id == answer_id
            deltas[delta.index].append(delta)
    return deltas, engine


def answer(text_or_ids, *, end=(EOT,), **fields):
    """The one sample's answer, put together."""
    ids = TOKENIZER.encode(text_or_ids) if isinstance(text_or_ids, str) else list(text_or_ids)
    (deltas,), _ = answers([[*ids, *end]], **fields)
    return collected(deltas)


def collected(deltas):
    whole = CollectedAnswer()
    for delta in deltas:
        whole.add(delta)
    return whole


def first_stop(text, strings):
    """The oracle: least (end, start) over every occurrence."""
    found = [
        (start + len(string), start, string)
        for string in strings
        for start in range(len(text))
        if text.startswith(string, start)
    ]
    return min(found, default=None)


ids = st.lists(st.integers(0, TOKENIZER.vocab_size - 1).filter(lambda i: i not in (EOT, EOM)))
strings = st.lists(st.sampled_from(["ab", "bc", "cab", "END", "\n##", "é", " E", "DaD"]))


@settings(max_examples=150)
@given(
    ids=ids | st.lists(st.sampled_from([*TOKENIZER.encode("abcEND \n#é"), 256, 257, 259, 260])),
    strings=strings,
    include_stop=st.booleans(),
    skip_special=st.booleans(),
)
def test_the_text_is_that_of_the_ids_up_to_the_first_stop_string(
    ids, strings, include_stop, skip_special
):
    fields = {
        "stop_strings": tuple(strings),
        "include_stop": include_stop,
        "skip_special": skip_special,
        "num_logprobs": 0,
    }
    whole = answer(ids, tokens_per_step=1, **fields)
    text = TOKENIZER.decode(ids, skip_special=skip_special)
    stop = first_stop(text, strings)
    if stop is not None:
        text = text[: stop[0] if include_stop else stop[1]]
    elif include_stop and not skip_special:
        text += "<eot>"
    assert whole.text == text
    assert whole.stop == (None if stop is None else stop[2])
    assert whole.finish_reason == "stop"
    if stop is None:
        assert (whole.tokens, whole.num_new_tokens) == (ids, len(ids) + 1)
    assert whole.tokens == ids[: len(whole.tokens)]
    assert [logprob.token for logprob in whole.logprobs] == whole.tokens
    # However many ids the engine gives at a time.
    for tokens_per_step in (2, 7, 1000):
        other = answer(ids, tokens_per_step=tokens_per_step, **fields)
        assert vars(other) | {"_texts": other.text} == vars(whole) | {"_texts": whole.text}


@settings(max_examples=60)
@given(ids=ids, strings=strings)
def test_text_that_is_out_is_never_taken_back(ids, strings):
    (deltas,), _ = answers([[*ids, EOT]], stop_strings=tuple(strings), tokens_per_step=1)
    shown = ""
    for delta in deltas:
        shown += delta.text
        assert collected(deltas).text.startswith(shown)
    assert [delta.finish_reason for delta in deltas[:-1]] == [None] * (len(deltas) - 1)


def test_what_may_begin_a_stop_string_is_held_until_it_does_not():
    script = [*TOKENIZER.encode("a EN EN"), *TOKENIZER.encode("D!")]
    (deltas,), engine = answers([script], stop_strings=(" END",), tokens_per_step=1)
    assert [delta.text for delta in deltas] == ["a", " EN", ""]
    assert (deltas[-1].finish_reason, deltas[-1].stop) == ("stop", " END")
    # The row goes no further than the stop string, and the ids behind the cut count.
    assert engine.cancelled == [0]
    assert deltas[-1].num_new_tokens == len(script) - 1


def test_the_engine_is_not_told_to_cancel_a_row_that_is_over():
    ids = TOKENIZER.encode("xEND")
    (deltas,), engine = answers([ids], stop_strings=("END",), max_new_tokens=4, tokens_per_step=9)
    assert (deltas[-1].text, deltas[-1].finish_reason) == ("x", "stop")
    assert engine.cancelled == []


def test_ids_wholly_behind_the_cut_are_not_shown_but_counted():
    ids = [*TOKENIZER.encode("xy"), 257, *TOKENIZER.encode("D")]
    whole = answer(ids, stop_strings=("bcD",), num_logprobs=0)
    # "abc" reaches across the cut, "D" lies behind it.
    assert (whole.text, whole.tokens, whole.num_new_tokens) == ("xya", ids[:3], 4)
    assert len(whole.logprobs) == 3


@pytest.mark.parametrize("token", [EOM, 100])
def test_an_id_that_stops_is_reported_only_if_it_was_asked_for(token):
    whole = answer("hello", end=[token], stop_ids=frozenset({100}))
    assert (whole.text, whole.num_new_tokens) == ("hello", 6)
    assert (whole.finish_reason, whole.stop) == ("stop", 100 if token == 100 else None)


def test_the_stopping_id_has_text_if_it_is_wanted():
    token = TOKENIZER.encode("!")[0]
    fields = {"end": [token], "stop_ids": frozenset({token})}
    assert answer("hello", **fields).text == "hello"
    whole = answer("hello", include_stop=True, **fields)
    assert (whole.text, len(whole.tokens), whole.num_new_tokens) == ("hello!", 5, 6)


def test_no_stop_string_counts_before_the_least_number_of_tokens():
    assert answer("a.b.c.", stop_strings=(".",)).text == "a"
    whole = answer("a.b.c.", stop_strings=(".",), min_new_tokens=2)
    assert (whole.text, whole.num_new_tokens) == ("a.b", 4)


def test_an_incomplete_character_comes_out_at_the_end():
    ids = TOKENIZER.encode("é")
    whole = answer([*ids, ids[0]], end=[], max_new_tokens=3)
    assert (whole.text, whole.tokens, whole.finish_reason) == ("é\ufffd", [*ids, ids[0]], "length")


def test_samples_differ_in_their_seed_and_share_nothing_else():
    scripts = [[*TOKENIZER.encode(text), EOT] for text in ("one", "two!", "three")]
    sampling = dataclasses.replace(GREEDY, temperature=1.0, seed=2**32 - 1)
    deltas, engine = answers(scripts, sampling=sampling, num_logprobs=2, stop_ids=frozenset({7}))
    assert [collected(sample).text for sample in deltas] == ["one", "two!", "three"]
    assert [request.sampling.seed for request in engine.requests] == [2**32 - 1, 0, 1]
    seedless = {
        dataclasses.replace(request, sampling=GREEDY, num_prompt_logprobs=None)
        for request in engine.requests
    }
    (request,) = seedless
    assert request.stop_ids == {EOT, EOM, 7}
    assert (request.prompt, request.max_new_tokens, request.num_logprobs) == ((BOS, 1, 2), 100, 2)


def test_logprobs_have_texts_and_bytes():
    ids = TOKENIZER.encode("é")
    first, second = answer(ids, num_logprobs=2).logprobs
    assert (first.token, first.text, first.bytes) == (ids[0], "\ufffd", "é".encode()[:1])
    assert first.logprob == -0.01 * ids[0]
    assert [likely.token for likely in second.top] == [ids[1] % 200, ids[1] % 200 + 1]
    assert b"".join(logprob.bytes for logprob in (first, second)) == "é".encode()


def test_every_sample_brings_the_logprobs_of_the_prompt_first():
    scripts = [[*TOKENIZER.encode(text), EOT] for text in ("one", "two")]
    deltas, engine = answers(scripts, num_prompt_logprobs=1, tokens_per_step=1)
    # They are computed once.
    assert [request.num_prompt_logprobs for request in engine.requests] == [1, None]
    for sample in deltas:
        assert [delta.prompt_logprobs is None for delta in sample] == [False, *[True] * 3]
        nothing, *rest = sample[0].prompt_logprobs
        assert (nothing, [logprob.token for logprob in rest]) == (None, [1, 2])


class SlowFirstRow(ScriptedEngine):
    """Its row 0 starts after the others, as if it had waited for pages."""

    def step(self):
        waits = [self._rows.pop(0)] if len(self._rows) > 1 else []
        progress = super().step()
        self._rows = {**{row.id: row for row in waits}, **self._rows}
        return progress


@pytest.mark.parametrize("first", [[5, EOT], []], ids=["answered", "failed"])
def test_samples_wait_for_the_logprobs_of_the_prompt(first):
    answering = Answering(SlowFirstRow([first, [1, 2, EOT]]), TOKENIZER)
    answering.add(dataclasses.replace(REQUEST, n=2, num_prompt_logprobs=0))
    assert answering.step() == []
    deltas = answering.step()
    assert answering.is_idle
    if first:
        assert [(delta.index, delta.finish_reason) for delta in deltas] == [
            (1, "stop"),
            (0, "stop"),
        ]
        assert all(len(delta.prompt_logprobs) == 3 for delta in deltas)
    else:
        assert [(delta.index, delta.finish_reason) for delta in deltas] == [
            (0, "error"),
            (1, "error"),
        ]


def test_scoring_a_prompt_shows_no_new_token():
    whole = answer("x", max_new_tokens=0, num_prompt_logprobs=1, num_logprobs=1)
    assert (whole.text, whole.tokens, whole.logprobs, whole.num_new_tokens) == ("", [], [], 0)
    assert whole.finish_reason == "length"
    assert len(whole.prompt_logprobs) == 3


def test_an_error_ends_its_sample_alone():
    deltas, _ = answers([TOKENIZER.encode("abc"), [*TOKENIZER.encode("fine"), EOT]])
    assert (deltas[0][-1].finish_reason, deltas[0][-1].error) == (
        "error",
        "the logits are not finite",
    )
    assert collected(deltas[1]).text == "fine"


def test_nothing_comes_of_a_cancelled_answer():
    engine = ScriptedEngine([[1] * 50, [2] * 50, [3, EOT]])
    answering = Answering(engine, TOKENIZER)
    cancelled = answering.add(dataclasses.replace(REQUEST, n=2))
    other = answering.add(REQUEST)
    assert {delta.answer_id for delta in answering.step()} == {cancelled, other}
    answering.cancel(cancelled)
    assert engine.cancelled == [0, 1]
    assert answering.is_idle
    assert answering.step() == []
    answering.cancel(cancelled)
    answering.cancel(12345)


def test_a_request_that_is_refused_leaves_nothing_behind():
    engine = ScriptedEngine([[1, EOT]])
    answering = Answering(engine, TOKENIZER)
    with pytest.raises(InputError, match="pages"):
        answering.add(dataclasses.replace(REQUEST, n=2))
    assert engine.is_idle and answering.is_idle


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": ()},
        {"max_new_tokens": 0},
        {"min_new_tokens": 101},
        {"min_new_tokens": -1},
        {"n": 0},
        {"stop_strings": ("a", "")},
        {"num_logprobs": 21},
        {"num_prompt_logprobs": -1},
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused(fields):
    with pytest.raises(InputError, match=next(iter(fields))):
        dataclasses.replace(REQUEST, **fields)
