"""SmolLM2-135M quantised: what each recipe costs in perplexity, on the text of its parity test.

Slow: 135 million weights, 3,000 tokens through four models, and 8,192 through the calibration. The
weights are 4-bit ones in groups of 32 already (Q4_1), multiplied out: to round them once more, to
other steps, is harder than to round what was never rounded.
"""

import jax
import ml_dtypes
import numpy as np
import pytest

from infer.smollm2 import smollm2_gguf
from llama_jax import costs, forward, load_checkpoint, logits
from llama_jax.checkpoints.block_calibration import ROW_TOKENS
from llama_jax.checkpoints.convert import convert
from llama_jax.checkpoints.formats import open_source
from llama_jax.checkpoints.quantized_source import QuantizedSource
from llama_jax.checkpoints.source_tokenizer import source_tokenizer
from llama_jax.quantization.recipes import RECIPES

pytestmark = pytest.mark.slow
WINDOW = 1000
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
# Rows of calibration text: of the same kind, from behind the tokens that perplexity is taken of.
CALIBRATION_ROWS = 16


@pytest.fixture(scope="module")
def texts():
    """Tokens to take the perplexity of, `[3, WINDOW]`, and tokens to calibrate with."""
    from pydoc_data.topics import topics

    text = "\n\n".join(topics[name] for name in sorted(topics))
    encode = source_tokenizer(open_source(smollm2_gguf())).encode
    shown = np.array(encode(text[:60_000])[: 3 * WINDOW]).reshape(3, WINDOW)
    rows = encode(text[70_000:130_000])[: CALIBRATION_ROWS * ROW_TOKENS]
    return shown, np.array(rows, np.int32).reshape(CALIBRATION_ROWS, ROW_TOKENS)


def perplexity(path, tokens, *, stacked: bool) -> float:
    config, params = load_checkpoint(path, dtype=np.float32, stacked=stacked)

    @jax.jit
    def loss(params, row):
        scores = logits(params, forward(params, row[None, :-1], config=config), config=config)[0]
        return -jax.numpy.take_along_axis(jax.nn.log_softmax(scores), row[1:, None], 1).mean()

    return float(np.exp(np.mean([float(loss(params, row)) for row in tokens])))


@pytest.fixture(scope="module")
def before(texts):
    return perplexity(smollm2_gguf(), texts[0], stacked=True)


@pytest.mark.parametrize("recipe, allowed", [("int8", 0.01), ("fp8", 0.01), ("int4", 0.06)])
def test_perplexity_rises_by_no_more_than(recipe, allowed, texts, before, tmp_path):
    shown, calibration = texts
    source = open_source(smollm2_gguf())
    quantized = QuantizedSource(
        source,
        RECIPES[recipe],
        dtype=BFLOAT16,
        calibration_tokens=calibration if recipe == "int4" else None,
    )
    convert(quantized, tmp_path / recipe, to="orbax", quiet=True, say=lambda line: None)
    stored = open_source(tmp_path / recipe).tensors
    size = sum(spec.num_bytes for spec in stored.values())
    assert size == costs.weight_bytes(source.config, BFLOAT16, recipe)

    after = perplexity(tmp_path / recipe, shown, stacked=recipe != "fp8")
    whole = costs.weight_bytes(source.config, BFLOAT16)
    print(f"{recipe}: {whole:,} -> {size:,} bytes, perplexity {before:.3f} -> {after:.3f}")
    assert -0.01 < after / before - 1 < allowed
