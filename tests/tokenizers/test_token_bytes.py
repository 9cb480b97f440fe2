"""The bytes of the tokens of a text, one after another, are those of the text."""

import pytest

from llama_jax.errors import InputError
from llama_jax.tokenizers.token_bytes import TokenBytes

# SentencePiece, and files made of its models, put a space before the text.
KINDS = {"llama31": "", "byte level": "", "sentencepiece": " ", "byte fallback": " "}


@pytest.mark.parametrize("kind", KINDS)
def test_bytes_of_the_tokens_make_the_text(tokenizers, kind, text):
    tokenizer = tokenizers[kind]
    token_bytes = TokenBytes(tokenizer)
    # The byte-fallback file reads a U+FFFD in a text as bytes that are no text.
    text = text.replace("\ufffd", "?") if kind == "byte fallback" else text
    joined = b"".join(token_bytes.of(token) for token in tokenizer.encode(text))
    assert joined == (KINDS[kind] * bool(text) + text).encode()


@pytest.mark.parametrize("kind", KINDS)
def test_every_byte_has_its_token(tokenizers, kind):
    tokenizer = tokenizers[kind]
    token_bytes = TokenBytes(tokenizer)
    singles = {token_bytes.of(token) for token in range(min(tokenizer.vocab_size, 600))}
    assert {bytes([byte]) for byte in range(256)} <= singles


@pytest.mark.parametrize("kind", KINDS)
def test_a_special_token_is_its_name(tokenizers, kind):
    tokenizer = tokenizers[kind]
    for text, token in tokenizer.special_tokens.items():
        if text != "<unk>":  # SentencePiece shows it as a sign
            assert TokenBytes(tokenizer).of(token) == text.encode()


def test_an_id_outside_the_vocabulary_is_refused(tokenizers):
    with pytest.raises(InputError, match="outside the vocabulary"):
        TokenBytes(tokenizers["byte level"]).of(10**6)
