"""SmolLM2-135M over a KV cache in 8 bits: what it costs in perplexity. Slow: 3,000 tokens."""

from pydoc_data.topics import topics

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from infer.cache_dtypes import cache_dtype_named
from infer.smollm2 import smollm2_gguf
from llama_jax import PREFILL, forward_cached, init_cache, load_checkpoint, logits
from llama_jax.checkpoints.formats import open_source
from llama_jax.checkpoints.source_tokenizer import source_tokenizer

pytestmark = pytest.mark.slow
WINDOW = 1000


def test_perplexity_stays_within_one_percent():
    text = "\n\n".join(topics[name] for name in sorted(topics))
    ids = source_tokenizer(open_source(smollm2_gguf())).encode(text[:30_000])[:WINDOW]
    tokens = jnp.array(ids)[None]
    config, params = load_checkpoint(smollm2_gguf(), dtype=np.float32, stacked=False)

    @jax.jit
    def loss(params, cache):
        hidden = forward_cached(params, tokens, cache, config=config, operators=PREFILL)[0]
        scores = jax.nn.log_softmax(logits(params, hidden[0, :-1], config=config))
        return -jnp.take_along_axis(scores, tokens[0, 1:, None], 1).mean()

    perplexity = {
        name: float(jnp.exp(loss(params, init_cache(config, 1, 1024, cache_dtype_named(name)))))
        for name in ("float32", "int8", "fp8")
    }
    print(perplexity)
    assert perplexity["float32"] != perplexity["int8"] != perplexity["fp8"]
    # The bound for weights of as many bits.
    assert perplexity["int8"] == pytest.approx(perplexity["float32"], rel=0.01)
    assert perplexity["fp8"] == pytest.approx(perplexity["float32"], rel=0.01)
