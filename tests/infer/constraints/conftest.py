"""A small byte-level tokenizer with words in it."""

import pytest
import tokenizers

from llama_jax.tokenizers.huggingface import HuggingFaceTokenizer

TEXTS = ('{"name": "get_weather", "parameters": {"city": "Paris", "days": 3}}', "foobar 12 aaa")
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


@pytest.fixture(scope="session")
def tokenizer():
    """Byte-level, 310 ids: not a multiple of 32."""
    trained = tokenizers.Tokenizer(tokenizers.models.BPE())
    trained.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=310,
        special_tokens=SPECIAL,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    trained.train_from_iterator(TEXTS * 4, trainer)
    files = {"tokenizer.json": trained.to_str().encode()}
    return HuggingFaceTokenizer(files, place="here")
