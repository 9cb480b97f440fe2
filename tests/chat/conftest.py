"""Tokenizers for the chat tests: Meta's own where it is installed, and tiny byte-level ones."""

from pathlib import Path

import pytest

CHATML_SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "</think>"]
LLAMA_SPECIAL_TOKENS = [
    "<|begin_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eom_id|>",
    "<|eot_id|>",
    "<|python_tag|>",
    "<|image|>",
    "<|reserved_special_token_7|>",
]


class MetaTokenizer:
    """Meta's Llama 3.1 tokenizer behind our interface."""

    def __init__(self, meta):
        self.meta = meta
        self.vocab_size = meta.n_words
        self.bos_id = meta.bos_id
        self.eos_ids = frozenset(meta.stop_tokens)
        self.special_tokens = dict(meta.special_tokens)

    def encode(self, text, *, allow_special=False):
        allowed = "all" if allow_special else None
        return self.meta.encode(text, bos=False, eos=False, allowed_special=allowed)

    def decode(self, ids, *, skip_special=False):
        special = set(self.special_tokens.values())
        return self.meta.decode([id for id in ids if not (skip_special and id in special)])


class TinyTokenizer:
    """A `tokenizers` byte-level BPE behind our interface."""

    def __init__(self, json_text, special_tokens):
        import tokenizers

        self._tokenizer = tokenizers.Tokenizer.from_str(json_text)
        self._plain = tokenizers.Tokenizer.from_str(json_text)
        self._plain.encode_special_tokens = True
        self.vocab_size = self._tokenizer.get_vocab_size()
        self.bos_id = None
        self.special_tokens = {text: self._tokenizer.token_to_id(text) for text in special_tokens}
        self.eos_ids = frozenset()

    def encode(self, text, *, allow_special=False):
        tokenizer = self._tokenizer if allow_special else self._plain
        return tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, ids, *, skip_special=False):
        return self._tokenizer.decode(list(ids), skip_special_tokens=skip_special)


@pytest.fixture(scope="session")
def meta_tokenizer():
    tokenizer = pytest.importorskip("llama_models.llama3.tokenizer")
    return MetaTokenizer(tokenizer.Tokenizer.get_instance())


def train_tiny_tokenizer(special_tokens):
    """The `tokenizer.json` of a byte-level BPE of 400 tokens."""
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers, trainers

    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special_tokens,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    # Several newlines in a row become one token, so that the edges of messages can merge.
    text = ["user\n\n\nassistant\n\n hello there, how are you? The answer is the one you know."] * 9
    tokenizer.train_from_iterator(text, trainer)
    return tokenizer.to_str()


@pytest.fixture(scope="session")
def tiny_tokenizer_json():
    return train_tiny_tokenizer(CHATML_SPECIAL_TOKENS)


@pytest.fixture(scope="session")
def tiny_tokenizer(tiny_tokenizer_json):
    return TinyTokenizer(tiny_tokenizer_json, CHATML_SPECIAL_TOKENS)


@pytest.fixture(scope="session")
def llama_tokenizer():
    """A tiny tokenizer with Llama 3.1's special tokens."""
    return TinyTokenizer(train_tiny_tokenizer(LLAMA_SPECIAL_TOKENS), LLAMA_SPECIAL_TOKENS)


@pytest.fixture(scope="session")
def templates():
    """Name -> Jinja source, of templates in the shapes that published checkpoints have."""
    folder = Path(__file__).parent / "templates"
    return {path.stem: path.read_text() for path in folder.glob("*.jinja")}


@pytest.fixture(scope="session")
def huggingface_tokenizer(tiny_tokenizer_json):
    transformers = pytest.importorskip("transformers")
    import tokenizers

    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer.from_str(tiny_tokenizer_json),
        bos_token="<|endoftext|>",
        eos_token="<|im_end|>",
    )
