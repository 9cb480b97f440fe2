"""The real model: SmolLM2-135M against transformers on the same weights, in float32.

Slow: a 93 MB download the first time, and 135 million parameters through two libraries.
"""

import jax
import numpy as np
import pytest

from infer.generate import Generator
from infer.loaded_model import load_model
from infer.smollm2 import smollm2_gguf
from llama_jax.chat import Message
from llama_jax.checkpoints.convert import convert
from llama_jax.checkpoints.load import load_checkpoint
from llama_jax.model import forward, logits

pytestmark = pytest.mark.slow
PROMPTS = (
    "What is the capital of France?",
    "Explain why the sky is blue.",
    "Write a Python function that computes the factorial of n.",
    "List three uses of a paper clip.",
    "Tell me a short story about a lighthouse keeper who is afraid of the dark.",
    "Hi",
    "Wie heißt die Hauptstadt von Österreich? 🙂",
    "I have 3 apples and buy 5 more. Then I eat two. How many apples are left? " * 4,
)
NUM_TOKENS = 40
WINDOW = 1000


@pytest.fixture(scope="module")
def peer(tmp_path_factory):
    """transformers' model of our export, and its tokenizer."""
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("smollm2") / "hf"
    convert(smollm2_gguf(), folder, to="hf", quiet=True, say=lambda line: None)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return model, transformers.AutoTokenizer.from_pretrained(folder)


def test_greedy_continuations_are_identical(peer):
    """Eight prompts of different lengths in one batch, against transformers one by one."""
    import torch

    model, tokenizer = peer
    loaded = load_model(smollm2_gguf(), dtype="float32")
    prompts = [loaded.chat_format.encode_prompt([Message("user", text)]) for text in PROMPTS]
    generator = Generator(loaded.config, loaded.params, eos_ids=loaded.eos_ids)
    completions = generator.generate(prompts, max_new_tokens=NUM_TOKENS)
    for text, prompt, completion in zip(PROMPTS, prompts, completions, strict=True):
        dialog = [{"role": "user", "content": text}]
        expected_prompt = tokenizer.apply_chat_template(
            dialog, add_generation_prompt=True, return_dict=False
        )
        assert prompt == expected_prompt
        with torch.inference_mode():
            output = model.generate(
                torch.tensor([prompt]),
                attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
                max_new_tokens=NUM_TOKENS,
                do_sample=False,
                eos_token_id=sorted(loaded.eos_ids),
                pad_token_id=0,
            )
        expected = output[0, len(prompt) :].tolist()
        stop = [] if completion.stop_token is None else [completion.stop_token]
        assert completion.tokens + stop == expected


def test_perplexity_equals_transformers(peer):
    """4,000 tokens of the Python documentation that every installation carries."""
    import torch

    model, tokenizer = peer
    from pydoc_data.topics import topics

    text = "\n\n".join(topics[name] for name in sorted(topics))[:60_000]
    tokens = np.array(tokenizer(text)["input_ids"][: 4 * WINDOW]).reshape(4, WINDOW)
    with torch.inference_mode():
        expected = [
            model(torch.from_numpy(row[None]), labels=torch.from_numpy(row[None])).loss.item()
            for row in tokens
        ]

    config, params = load_checkpoint(smollm2_gguf(), dtype=np.float32)

    @jax.jit
    def loss(params, row):
        scores = logits(params, forward(params, row[None, :-1], config=config), config=config)[0]
        return -jax.numpy.take_along_axis(jax.nn.log_softmax(scores), row[1:, None], 1).mean()

    ours = [float(loss(params, row)) for row in tokens]
    perplexity, expected_perplexity = np.exp(np.mean(ours)), np.exp(np.mean(expected))
    assert 1 < expected_perplexity < 100
    assert abs(perplexity / expected_perplexity - 1) < 1e-3
