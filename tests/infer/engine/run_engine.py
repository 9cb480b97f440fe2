"""A tiny model, engines for it, and their answers, for the tests of the engine."""

import dataclasses
import functools

import jax
import numpy as np

from infer.engine.engine import Engine
from infer.engine.request import Progress, Request
from infer.engine.settings import GREEDY_ONLY, EngineSettings
from infer.sampling import GREEDY, SamplingParameters
from llama_jax.config import TINY, ModelConfig
from llama_jax.model import init_params, unstack_blocks

CONFIG = dataclasses.replace(TINY, vocab_size=264, context_length=4096)
SETTINGS = EngineSettings(
    row_buckets=(2, 4),
    max_length=256,
    page_size=8,
    num_pages=160,
    prefill_tokens=64,
    prefill_lengths=(16, 64),
    decode_steps=4,
    modes=(GREEDY_ONLY,),
)


@functools.cache
def tiny_params(config: ModelConfig = CONFIG):
    # Larger than the real initialisation, so that random answers vary.
    params = jax.tree.map(lambda x: 4 * x, init_params(config, jax.random.key(0)))
    return unstack_blocks(params)


@functools.lru_cache(maxsize=4)
def compiled_engine(settings: EngineSettings = SETTINGS, config: ModelConfig = CONFIG) -> Engine:
    engine = Engine(config, tiny_params(config), settings)
    engine.compile()
    return engine


def random_prompts(lengths, seed=0, vocab_size=CONFIG.vocab_size):
    rng = np.random.default_rng(seed)
    return [tuple(rng.integers(0, vocab_size, n).tolist()) for n in lengths]


def ask(prompt, num_tokens=12, sampling: SamplingParameters = GREEDY, **fields) -> Request:
    return Request(tuple(prompt), sampling, num_tokens, **fields)


def run(engine: Engine, requests) -> list[list[Progress]]:
    """What the engine told of each request; checks that no page is left in use."""
    ids = [engine.add(request) for request in requests]
    told: dict[int, list[Progress]] = {request_id: [] for request_id in ids}
    while not engine.is_idle:
        for progress in engine.step():
            told[progress.request_id].append(progress)
    usage = engine.usage()
    assert (usage.pages_used, usage.running, usage.waiting) == (0, 0, 0)
    return [told[request_id] for request_id in ids]


def answers(engine: Engine, requests) -> list[list[int]]:
    """The new ids of each request."""
    return [
        [token for progress in told for token in progress.tokens] for told in run(engine, requests)
    ]
