"""Small prepared folders, written without a tokenizer; and a small tokenizer."""

import json

import numpy as np
import pytest

from train.config import Source
from train.data.mixture import Mixture
from train.data.shard_writer import write_rows

from .corpus import TEXTS

VOCAB_SIZE = 1000
HASH = "a" * 64


@pytest.fixture
def write(tmp_path):
    """write(name, documents, **options) -> the folder."""

    def write(name, documents, *, row_length=8, tokenizer_sha256=HASH, **options):
        write_rows(
            tmp_path / name,
            documents,
            row_length=row_length,
            vocab_size=VOCAB_SIZE,
            tokenizer_sha256=tokenizer_sha256,
            **options,
        )
        return tmp_path / name

    return write


@pytest.fixture
def mixture(write):
    """Two sources: 20 rows of tokens below 200, 7 rows of tokens from 500 on; shares 3 to 1."""
    rng = np.random.default_rng(0)
    low = [rng.integers(1, 200, length) for length in (50, 1, 60, 50)]
    high = [rng.integers(500, 999, 55)]
    sources = (
        Source("low", str(write("low", low, rows_per_shard=6)), 0.75),
        Source("high", str(write("high", high)), 0.25),
    )
    return Mixture(sources, row_length=8, seed=5, tokenizer_sha256=HASH)


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory):
    """A folder with a small tokenizer as SmolLM2's."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    folder = tmp_path_factory.mktemp("tokenizer")
    built = Tokenizer(models.BPE())
    built.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    built.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    built.train_from_iterator(TEXTS, trainer)
    built.save(str(folder / "tokenizer.json"))
    roles = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(roles))
    return folder
