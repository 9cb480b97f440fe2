"""The engine against `infer/generate` and transformers, and how rows end."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from infer.engine.settings import EVERYTHING, GREEDY_ONLY, SAMPLED
from infer.generate import Generator
from infer.sampling import GREEDY, SamplingParameters
from llama_jax import save_checkpoint
from llama_jax.errors import InputError
from llama_jax.model import forward, init_params, logits
from tests.infer.engine.run_engine import (
    CONFIG,
    SETTINGS,
    answers,
    ask,
    compiled_engine,
    random_prompts,
    run,
    tiny_params,
)

LENGTHS = (1, 2, 9, 16, 17, 65, 130, 40)
PROMPTS = random_prompts(LENGTHS)


@pytest.fixture(scope="module")
def generated():
    generator = Generator(CONFIG, tiny_params(), eos_ids=frozenset())
    return [c.tokens for c in generator.generate(PROMPTS, max_new_tokens=12)]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"page_size": 16, "row_buckets": (8,)},
        {"page_size": 4, "num_pages": 320, "prefill_lengths": (4, 8, 32), "row_buckets": (3,)},
        {"prefill_tokens": 32, "prefill_lengths": (32,), "decode_steps": 1, "prefill_calls": 1},
        {"num_pages": 32, "row_buckets": (8,), "decode_steps": 8},
        {"prefix_sharing": False, "decode_steps": 16},
    ],
    ids=lambda changes: "-".join(changes) or "as they are",
)
def test_greedy_answers_are_those_of_generate(generated, changes):
    engine = compiled_engine(dataclasses.replace(SETTINGS, **changes))
    assert answers(engine, [ask(prompt) for prompt in PROMPTS]) == generated


def test_sampled_answers_are_those_of_generate():
    engine = compiled_engine(dataclasses.replace(SETTINGS, modes=(SAMPLED,)))
    rows = [
        GREEDY,
        SamplingParameters(1.0, seed=1),
        SamplingParameters(0.8, top_p=0.9, seed=2),
        SamplingParameters(1.2, top_k=20, seed=3),
    ]
    expected = Generator(CONFIG, tiny_params(), eos_ids=frozenset()).generate(
        PROMPTS[:4], max_new_tokens=12, sampling=rows
    )
    requests = [ask(prompt, sampling=row) for prompt, row in zip(PROMPTS, rows, strict=False)]
    assert answers(engine, requests) == [completion.tokens for completion in expected]


def test_greedy_answers_are_those_of_transformers(tmp_path):
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForCausalLM

    params = jax.tree.map(lambda x: 4 * x, init_params(CONFIG, jax.random.key(0)))
    save_checkpoint(tmp_path / "hf", CONFIG, params, format="hf")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "hf", dtype=torch.float32)
    for prompt, answer in zip(
        PROMPTS, answers(compiled_engine(), [ask(prompt) for prompt in PROMPTS]), strict=True
    ):
        ids = torch.tensor([prompt])
        tokens = theirs.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False
        )
        assert tokens[0, len(prompt) :].tolist() == answer


def test_rows_lose_their_pages_and_still_answer_the_same(generated):
    settings = dataclasses.replace(SETTINGS, num_pages=24, row_buckets=(8,), prefix_sharing=False)
    engine = compiled_engine(settings)
    before = engine.usage().preemptions
    requests = [ask(prompt) for prompt in (*PROMPTS[1:5], *PROMPTS[1:5])]
    longer = [dataclasses.replace(request, max_new_tokens=60) for request in requests]
    first = answers(engine, longer)
    assert engine.usage().preemptions > before
    assert [answer[:12] for answer in first] == generated[1:5] * 2
    assert first == answers(compiled_engine(), longer)


def test_prompts_that_begin_alike_share_pages(generated):
    engine = compiled_engine(dataclasses.replace(SETTINGS, row_buckets=(2, 5)))
    start = engine.usage()
    prompt = PROMPTS[6]
    samples = answers(engine, [ask(prompt)] * 5)
    end = engine.usage()
    assert samples == [generated[6]] * 5
    whole_pages = (len(prompt) - 1) // SETTINGS.page_size
    assert end.shared_tokens - start.shared_tokens == 4 * whole_pages * SETTINGS.page_size
    # Later, too: the pages are kept until others need them.
    assert answers(engine, [ask(prompt)]) == [generated[6]]
    assert engine.usage().prompt_tokens - end.prompt_tokens < SETTINGS.page_size


def test_a_row_stops_at_its_own_ids_and_not_before_its_least_length(generated):
    engine = compiled_engine()
    stop = generated[3][5]
    first = generated[3].index(stop)
    (told,) = run(engine, [ask(PROMPTS[3], stop_ids=frozenset({stop}))])
    assert [t for progress in told for t in progress.tokens] == generated[3][:first]
    assert (told[-1].finish_reason, told[-1].stop_token) == ("stop", stop)
    longer = ask(PROMPTS[3], stop_ids=frozenset({stop}), min_new_tokens=first + 2)
    (told,) = run(engine, [longer])
    tokens = [t for progress in told for t in progress.tokens]
    assert tokens[:first] == generated[3][:first] and len(tokens) >= first + 2
    assert stop not in tokens


def test_a_cancelled_row_is_not_spoken_of_and_leaves_no_pages(generated):
    engine = compiled_engine()
    kept, gone, waiting = (engine.add(ask(PROMPTS[i])) for i in (2, 3, 4))
    engine.step()
    engine.cancel(gone)
    engine.cancel(waiting)
    engine.cancel(waiting)
    told = set()
    while not engine.is_idle:
        for progress in engine.step():
            told.add(progress.request_id)
    assert told <= {kept} and engine.usage().pages_used == 0


def test_log_probabilities_are_those_of_the_whole_sequence():
    settings = dataclasses.replace(SETTINGS, modes=(EVERYTHING,), prompt_logprobs=True)
    engine = compiled_engine(settings)
    requests = [ask(p, num_logprobs=3, num_prompt_logprobs=2) for p in PROMPTS[:7]]
    for request, told in zip(requests, run(engine, requests), strict=True):
        tokens = [t for progress in told for t in progress.tokens]
        scored = [entry for progress in told for entry in progress.logprobs]
        whole = jnp.array([[*request.prompt, *tokens]])
        hidden = forward(tiny_params(), whole, config=CONFIG)
        scores = np.asarray(logits(tiny_params(), hidden, config=CONFIG))[0]
        expected = scores - np.log(np.exp(scores).sum(-1, keepdims=True))
        everything = [*told[0].prompt_logprobs[1:], *scored]
        assert told[0].prompt_logprobs[0] is None
        assert [entry.token for entry in everything] == whole[0, 1:].tolist()
        for place, entry in enumerate(everything):
            # float32 products in another order, through two layers: 1e-5 of logits of about 10.
            np.testing.assert_allclose(entry.logprob, expected[place, entry.token], atol=1e-4)
            num_top = 2 if place < len(request.prompt) - 1 else 3
            best = np.sort(expected[place])[::-1][:num_top]
            np.testing.assert_allclose([x for _, x in entry.top], best, atol=1e-4)
            for token, logprob in entry.top:
                np.testing.assert_allclose(logprob, expected[place, token], atol=1e-4)


def test_rows_may_choose_only_what_they_are_allowed():
    engine = compiled_engine(dataclasses.replace(SETTINGS, modes=(EVERYTHING,)))
    only = SamplingParameters(1.0, allowed_ids=(5, 77), seed=3)
    free, held = answers(engine, [ask(PROMPTS[4]), ask(PROMPTS[4], sampling=only)])
    assert set(held) == {5, 77} and not set(free) <= {5, 77}


class Alternating:
    """A grammar of one sentence: 7 8 7 8."""

    def __init__(self):
        self.num_taken = 0

    @property
    def is_finished(self):
        return self.num_taken == 4

    def mask(self):
        words = np.zeros(-(-CONFIG.vocab_size // 32), np.uint32)
        words[0] = 1 << (7 + self.num_taken % 2)
        return words

    def accept(self, token):
        assert token == 7 + self.num_taken % 2
        self.num_taken += 1


def test_a_row_obeys_its_grammar_and_others_are_not_touched(generated):
    engine = compiled_engine(dataclasses.replace(SETTINGS, modes=(GREEDY_ONLY, EVERYTHING)))
    bound, free = run(engine, [ask(PROMPTS[2], constraint=Alternating), ask(PROMPTS[3])])
    assert [t for progress in bound for t in progress.tokens] == [7, 8, 7, 8]
    assert bound[-1].finish_reason == "stop"
    assert [t for progress in free for t in progress.tokens] == generated[3]


class Nothing(Alternating):
    def mask(self):
        return np.zeros(-(-CONFIG.vocab_size // 32), np.uint32)


def test_a_row_with_nothing_to_choose_ends_with_an_error_alone(generated):
    engine = compiled_engine(dataclasses.replace(SETTINGS, modes=(GREEDY_ONLY, EVERYTHING)))
    bound, free = run(engine, [ask(PROMPTS[2], constraint=Nothing), ask(PROMPTS[3])])
    assert bound[-1].finish_reason == "error" and "no token is allowed" in bound[-1].error
    assert [t for progress in free for t in progress.tokens] == generated[3]


@pytest.mark.parametrize(
    "request_of, reason",
    [
        (lambda: ask([264]), "outside the vocabulary of 264"),
        (lambda: ask([-1]), "outside the vocabulary of 264"),
        (lambda: ask([1] * 250), "250 tokens and asks for 12 new ones, over the 256"),
        (lambda: ask([]), "prompt is empty"),
        (lambda: ask([1], num_tokens=0), "max_new_tokens must be at least 1"),
        (lambda: ask([1], min_new_tokens=13), "min_new_tokens must be from 0 to max_new_tokens"),
        (lambda: ask([1], num_logprobs=21), "num_logprobs must be from 0 to 20"),
        (lambda: ask([1], num_logprobs=2), "not compiled for"),
        (lambda: ask([1], num_prompt_logprobs=2), "start the server with --prompt-logprobs"),
        (lambda: ask([1], sampling=SamplingParameters(1.0)), "not compiled for"),
        (lambda: ask([1], stop_ids=frozenset(range(17))), "17 stop ids, and the most is 16"),
    ],
    ids=range(11),
)
def test_what_can_never_be_answered_is_refused_at_once(request_of, reason):
    with pytest.raises(InputError, match=reason):
        compiled_engine().add(request_of())
    assert compiled_engine().is_idle


def test_more_tokens_than_all_pages_hold_are_refused():
    engine = compiled_engine(dataclasses.replace(SETTINGS, num_pages=4, row_buckets=(2,)))
    with pytest.raises(InputError, match="take 6 pages, and there are 4"):
        engine.add(ask([1] * 30))
