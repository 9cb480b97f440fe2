"""Generation: cached against uncached, and independence of batch, padding and chunking."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import infer.generate
from infer.decode_loop import DecodeState, decode
from infer.generate import Generator
from infer.sampling import GREEDY, SamplingParameters, stack_sampling
from llama_jax.config import TINY, DynamicNtkScaling
from llama_jax.errors import InputError
from llama_jax.model import DECODE, forward, init_cache, init_params, logits, unstack_blocks

CONFIG = dataclasses.replace(TINY, context_length=2048)
PROMPT_LENGTHS = (1, 5, 70, 33)


@pytest.fixture(scope="module")
def params():
    # Larger than the real initialisation, so that random answers vary.
    return jax.tree.map(lambda x: 4 * x, init_params(CONFIG, jax.random.key(0)))


@pytest.fixture(scope="module")
def generator(params):
    return Generator(CONFIG, unstack_blocks(params), eos_ids=frozenset(), decode_steps=8)


def random_prompts(lengths, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, CONFIG.vocab_size, n).tolist() for n in lengths]


PROMPTS = random_prompts(PROMPT_LENGTHS)
MIXED = [
    GREEDY,
    SamplingParameters(1.0, seed=1),
    SamplingParameters(0.8, top_p=0.9, seed=2),
    SamplingParameters(1.2, top_k=20, seed=3),
]


def uncached_greedy(params, prompt, num_tokens, config=CONFIG):
    """Runs the whole sequence again for every token; padding at the right changes nothing."""
    length = len(prompt) + num_tokens
    step = jax.jit(
        lambda tokens: logits(params, forward(params, tokens, config=config), config=config)
    )
    tokens = list(prompt)
    for _ in range(num_tokens):
        padded = np.zeros((1, length), np.int32)
        padded[0, : len(tokens)] = tokens
        tokens.append(int(step(padded)[0, len(tokens) - 1].argmax()))
    return tokens[len(prompt) :]


def test_cached_equals_uncached(params, generator):
    completions = generator.generate(PROMPTS, max_new_tokens=20)
    for prompt, completion in zip(PROMPTS, completions, strict=True):
        assert completion.tokens == uncached_greedy(params, prompt, 20)
        assert completion.finish_reason == "length" and completion.stop_token is None


def test_a_prompt_of_several_chunks(params, generator):
    prompts = random_prompts((1100, 3))
    completions = generator.generate(prompts, max_new_tokens=4)
    for prompt, completion in zip(prompts, completions, strict=True):
        assert completion.tokens == uncached_greedy(params, prompt, 4)


def test_dynamic_rope_scaling_sees_the_whole_prompt(params):
    scaling = DynamicNtkScaling(factor=4.0, original_context_length=256)
    config = dataclasses.replace(CONFIG, rope_scaling=scaling)
    generator = Generator(config, unstack_blocks(params), eos_ids=frozenset())
    (prompt,) = random_prompts((1024,))
    (completion,) = generator.generate([prompt], max_new_tokens=1)
    assert completion.tokens == uncached_greedy(params, prompt, 1, config)


def test_a_row_does_not_depend_on_its_batch(generator):
    # The sampled rows ask for the same computations, so that they share a program when alone.
    rows = [GREEDY, *(SamplingParameters(1.0, top_p=0.9, top_k=20, seed=s) for s in (1, 2, 3))]
    together = generator.generate(PROMPTS, max_new_tokens=[12, 3, 20, 7], sampling=rows)
    for prompt, limit, sampling, row in zip(PROMPTS, (12, 3, 20, 7), rows, together, strict=True):
        assert len(row.tokens) == limit
        assert generator.generate([prompt], max_new_tokens=limit, sampling=sampling) == [row]


def test_chunked_equals_unchunked(params, generator):
    one_call = Generator(CONFIG, generator.params, eos_ids=frozenset(), decode_steps=32)
    chunks = list(generator.stream(PROMPTS, max_new_tokens=20, sampling=MIXED))
    assert [len(chunk[0]) for chunk in chunks] == [1, 8, 8, 3]
    whole = one_call.generate(PROMPTS, max_new_tokens=20, sampling=MIXED)
    for index, completion in enumerate(whole):
        assert completion.tokens == sum((chunk[index] for chunk in chunks), [])


def test_padding_is_invisible(generator, monkeypatch):
    expected = generator.generate(PROMPTS, max_new_tokens=6, sampling=MIXED)
    monkeypatch.setattr(infer.generate, "_LADDER", (100, 512))
    assert generator.generate(PROMPTS, max_new_tokens=6, sampling=MIXED) == expected


def test_rows_that_fill_the_batch_are_invisible(generator, monkeypatch):
    expected = generator.generate(PROMPTS, max_new_tokens=6, sampling=MIXED)
    monkeypatch.setattr(infer.generate, "_batch_rows", lambda num_rows, weight: 8)
    assert generator.generate(PROMPTS, max_new_tokens=6, sampling=MIXED) == expected


def test_each_row_stops_at_its_own_end(generator):
    free = [row.tokens for row in generator.generate(PROMPTS, max_new_tokens=20)]
    eos_ids = frozenset({free[0][4], free[2][9]})
    stopping = Generator(CONFIG, generator.params, eos_ids=eos_ids, decode_steps=8)
    for tokens, row in zip(free, stopping.generate(PROMPTS, max_new_tokens=20), strict=True):
        ends = [index for index, token in enumerate(tokens) if token in eos_ids]
        assert row.tokens == tokens[: ends[0] if ends else 20]
        assert row.finish_reason == ("stop" if ends else "length")
        assert row.stop_token == (tokens[ends[0]] if ends else None)


def test_stops_when_every_row_is_done(generator):
    """A first token that ends the answer costs no decode step."""
    (row,) = generator.generate([PROMPTS[2]], max_new_tokens=1)
    stopping = Generator(CONFIG, generator.params, eos_ids=frozenset(row.tokens))
    chunks = list(stopping.stream([PROMPTS[2]], max_new_tokens=100))
    assert chunks == [[row.tokens]]
    assert stopping.generate([PROMPTS[2]], max_new_tokens=100)[0].tokens == []


def test_few_programs(generator):
    """Lengths, limits and seeds within one rung of the ladder compile nothing new."""
    generator.generate(PROMPTS, max_new_tokens=20, sampling=SamplingParameters(1.0))
    compiled = decode._cache_size()
    for seed in (1, 2):
        prompts = random_prompts((66, 100, 2, 90 + seed), seed)
        generator.generate(
            prompts, max_new_tokens=17 + seed, sampling=SamplingParameters(0.5, seed=seed)
        )
    assert decode._cache_size() == compiled


def test_decoding_copies_no_cache():
    """Scratch memory of the compiled loop is under one layer's keys and values: no layer's cache is
    copied or transposed, in no step."""
    slots, num_rows = 8192, 4
    state, layer_bytes = decode_state(num_rows, slots)
    rows, mode = stack_sampling([GREEDY] * num_rows)
    params = jax.eval_shape(lambda: unstack_blocks(init_params(CONFIG, jax.random.key(0))))
    lowered = decode.lower(
        params,
        state,
        rows,
        np.array([0], np.int32),
        num_steps=8,
        most_steps=8,
        config=CONFIG,
        vocab_size=CONFIG.vocab_size,
        operators=DECODE,
        mode=mode,
    )
    memory = lowered.compile().memory_analysis()
    assert memory.alias_size_in_bytes >= CONFIG.num_layers * layer_bytes
    # Scores of 4 heads are a quarter of the keys of 2 heads with 16 dimensions (an eighth of the
    # layer), and a few arrays of their size may live at once.
    assert memory.temp_size_in_bytes < layer_bytes


def decode_state(num_rows, slots):
    cache = jax.eval_shape(lambda: init_cache(CONFIG, num_rows, slots, jnp.float32))
    per_row = jax.ShapeDtypeStruct((num_rows,), jnp.int32)
    done = jax.ShapeDtypeStruct((num_rows,), bool)
    layer_bytes = sum(4 * leaf.size for leaf in (cache.keys[0], cache.values[0]))
    return DecodeState(cache, per_row, per_row, per_row, done), layer_bytes


def test_only_ids_of_the_tokenizer_are_chosen(params, generator):
    """A padded vocabulary: whatever the rows past the end say, the answer is that without them."""
    small = dataclasses.replace(CONFIG, vocab_size=200)
    cut = {name: params[name][:200] for name in ("embedding", "head")}
    cut = Generator(small, unstack_blocks(params | cut), eos_ids=frozenset())
    padded = Generator(CONFIG, generator.params, eos_ids=frozenset(), vocab_size=200)
    prompts = [[token % 200 for token in prompt] for prompt in PROMPTS]
    free = generator.generate(prompts, max_new_tokens=8, sampling=MIXED)
    assert max(max(row.tokens) for row in free) >= 200
    expected = cut.generate(prompts, max_new_tokens=8, sampling=MIXED)
    assert padded.generate(prompts, max_new_tokens=8, sampling=MIXED) == expected


@pytest.mark.parametrize("sampling", [GREEDY, SamplingParameters(1.0, top_p=0.9)])
def test_logits_that_are_not_finite_are_said(params, sampling):
    """float16 overflows at 65504: here in the feed-forward part."""
    large = jax.tree.map(lambda x: (200 * x).astype(jnp.float16), params)
    generator = Generator(CONFIG, unstack_blocks(large), eos_ids=frozenset())
    with pytest.raises(InputError, match="not finite in float16 .* use --dtype bfloat16"):
        generator.generate([PROMPTS[1]], max_new_tokens=4, sampling=sampling)


def test_bfloat16_cache(params):
    generator = Generator(
        CONFIG, unstack_blocks(params), eos_ids=frozenset(), cache_dtype=jnp.bfloat16
    )
    assert [len(row.tokens) for row in generator.generate(PROMPTS, max_new_tokens=3)] == [3] * 4


@pytest.mark.parametrize(
    "prompts, limit, message",
    [
        ([], 5, "no prompt"),
        ([[1], []], 5, "prompt 2 is empty"),
        ([[1, 256]], 5, "outside the vocabulary of 256"),
        ([[-1]], 5, "outside the vocabulary"),
        ([[1] * 2048], 1, "2048 tokens .* context of 2048"),
        ([[1], [1] * 2000], 49, "prompt 2 has 2000 tokens and asks for 49 new ones"),
        ([[1]], 0, "max_new_tokens"),
        ([[1]], [3, 4], "1 prompts but 2 values"),
    ],
)
def test_bad_input_is_refused_in_one_line(generator, prompts, limit, message):
    with pytest.raises(InputError, match=message) as caught:
        generator.stream(prompts, max_new_tokens=limit)
    assert "\n" not in str(caught.value)


def test_the_context_can_be_filled_to_the_last_token(generator):
    (prompt,) = random_prompts((2040,))
    (row,) = generator.generate([prompt], max_new_tokens=8)
    assert len(row.tokens) == 8
