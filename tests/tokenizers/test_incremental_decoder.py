"""Text that comes out piece by piece is the text of all the ids, and is never taken back."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_jax.tokenizers.incremental_decoder import IncrementalDecoder


def without_marks(text):
    """▁ comes back as a space, and a U+FFFD in byte tokens looks like bytes that are no text."""
    return text.replace("▁", "_").replace("\ufffd", "?")


KINDS = ["llama31", "byte level", "sentencepiece", "byte fallback"]


def pieces_of(tokenizer, ids, *, skip_special=False):
    decoder = IncrementalDecoder(tokenizer, skip_special=skip_special)
    return [*(decoder.push(token_id) for token_id in ids), decoder.finish()]


@pytest.mark.parametrize("kind", KINDS)
def test_pieces_make_the_text(tokenizers, kind, text):
    tokenizer = tokenizers[kind]
    if kind == "byte fallback":  # a U+FFFD in the text looks like bytes that are no text
        text = text.replace("\ufffd", "?")
    pieces = pieces_of(tokenizer, tokenizer.encode(text))
    assert "".join(pieces) == text
    if "\ufffd" not in text:
        assert not any("\ufffd" in piece for piece in pieces)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=100)
@given(text=st.text(max_size=40).map(without_marks))
def test_pieces_make_any_text(tokenizers, kind, text):
    tokenizer = tokenizers[kind]
    assert "".join(pieces_of(tokenizer, tokenizer.encode(text))) == text


# Not "byte fallback": for bytes that are no text its library takes back what it had decoded.
@pytest.mark.parametrize("kind", ["llama31", "byte level", "sentencepiece"])
@pytest.mark.parametrize("skip_special", [False, True])
@settings(max_examples=200)
@given(data=st.data())
def test_pieces_of_any_ids_make_their_text(tokenizers, kind, skip_special, data):
    tokenizer = tokenizers[kind]
    single_bytes = st.integers(0, 300)  # where all three keep the bytes and the special tokens
    any_id = st.integers(0, tokenizer.vocab_size - 1)
    ids = data.draw(st.lists(single_bytes | any_id, max_size=30))
    pieces = pieces_of(tokenizer, ids, skip_special=skip_special)
    assert "".join(pieces) == tokenizer.decode(ids, skip_special=skip_special)


def test_a_character_comes_out_with_its_last_byte(tokenizers):
    tokenizer = tokenizers["byte fallback"]
    ids = tokenizer.encode("a👍é")
    assert pieces_of(tokenizer, ids) == ["", "a", "", "", "", "👍", "", "é", ""]


def test_spaces_between_words_stay(tokenizers):
    for kind in ("sentencepiece", "byte fallback"):
        tokenizer = tokenizers[kind]
        ids = [*tokenizer.encode("the"), *tokenizer.encode("the"), 2, *tokenizer.encode("the")]
        assert "".join(pieces_of(tokenizer, ids, skip_special=True)) == "the the the"


def test_a_character_never_completed_comes_out_at_the_end(tokenizers):
    tokenizer = tokenizers["byte fallback"]
    assert pieces_of(tokenizer, tokenizer.encode("a👍")[:-1])[-1] == "\ufffd" * 3


def test_cost_of_a_token_does_not_grow():
    """Texts and bytes that are no text: every decode sees a handful of ids."""

    class ByteTokenizer:
        vocab_size, bos_id, eos_ids, special_tokens = 256, None, frozenset(), {}
        longest = 0

        def encode(self, text, *, allow_special=False):
            return list(text.encode())

        def decode(self, ids, *, skip_special=False):
            self.longest = max(self.longest, len(ids))
            return bytes(ids).decode("utf-8", "replace")

    tokenizer = ByteTokenizer()
    ids = ["日本語 text "] * 200
    ids = [*b"".join(text.encode() for text in ids), *[0x80] * 1000, *[0xF0, 0x9F] * 500]
    assert "".join(pieces_of(tokenizer, ids)) == bytes(ids).decode("utf-8", "replace")
    assert tokenizer.longest <= 12
