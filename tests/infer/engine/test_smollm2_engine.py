"""The real model in the engine, prompts of 1 to 3,000 tokens, against transformers and `generate`.

Slow: 135 million parameters through three programs, and a row that loses its pages.
"""

import dataclasses
from pydoc_data.topics import topics

import pytest

from infer.engine.engine import Engine
from infer.engine.settings import EVERYTHING, EngineSettings
from infer.generate import Generator
from infer.loaded_model import load_model
from infer.smollm2 import smollm2_gguf
from llama_jax.checkpoints.convert import convert
from tests.infer.engine.run_engine import ask, run

pytestmark = pytest.mark.slow
LENGTHS = (1, 7, 130, 700, 3000)
NUM_TOKENS = 16
SETTINGS = EngineSettings(
    row_buckets=(5,),
    max_length=3072,
    page_size=16,
    num_pages=300,
    prefill_lengths=(32, 512),
    modes=(dataclasses.replace(EVERYTHING, penalties=False, bias=False, mask=False),),
)


@pytest.fixture(scope="module")
def loaded():
    return load_model(smollm2_gguf(), dtype="float32")


@pytest.fixture(scope="module")
def prompts(loaded):
    text = "\n\n".join(topics[name] for name in sorted(topics))
    ids = loaded.tokenizer.encode(text[:40_000])
    return [ids[1000 * i : 1000 * i + length] for i, length in enumerate(LENGTHS)]


@pytest.fixture(scope="module")
def told(loaded, prompts):
    """By the engine in float32, with the pages of one prompt too few, so that rows lose theirs."""
    engine = Engine(loaded.config, loaded.params, SETTINGS)
    engine.compile()
    return run(engine, [ask(prompt, NUM_TOKENS, num_logprobs=0) for prompt in prompts])


def tokens_of(told):
    return [[token for progress in row for token in progress.tokens] for row in told]


def test_greedy_answers_are_those_of_generate_and_transformers(loaded, prompts, told, tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    answered = tokens_of(told)
    generator = Generator(loaded.config, loaded.params, eos_ids=frozenset())
    # The longest, to whose length the others would be padded, is for transformers alone.
    generated = generator.generate(prompts[:-1], max_new_tokens=NUM_TOKENS)
    assert answered[:-1] == [completion.tokens for completion in generated]
    convert(smollm2_gguf(), tmp_path / "hf", to="hf", quiet=True, say=lambda line: None)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "hf", dtype=torch.float32
    ).eval()
    for prompt, answer in zip(prompts, answered, strict=True):
        ids = torch.tensor([prompt])
        with torch.inference_mode():
            output = theirs.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=NUM_TOKENS,
                min_new_tokens=NUM_TOKENS,
                do_sample=False,
                # None of its own: `min_new_tokens` would mask it.
                eos_token_id=[],
                pad_token_id=0,
            )
        assert output[0, len(prompt) :].tolist() == answer
