"""SentencePiece models: the library's own ids, and control tokens in a text stay plain."""

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_jax.errors import InputError
from llama_jax.tokenizers.sentencepiece import SentencePieceTokenizer

ANY_TEXT = st.lists(
    st.one_of(st.text(max_size=20), st.sampled_from(["<s>", "</s>", "<0x0A>", "▁", "  "])),
    max_size=8,
).map("".join)


@pytest.fixture(scope="session")
def tokenizer(sentencepiece_model):
    return SentencePieceTokenizer(sentencepiece_model)


@pytest.fixture(scope="session")
def library(sentencepiece_model):
    return sentencepiece.SentencePieceProcessor(model_file=str(sentencepiece_model))


def test_what_the_file_says(tokenizer):
    assert tokenizer.vocab_size == 600
    assert tokenizer.special_tokens == {"<s>": 1, "</s>": 2}
    assert (tokenizer.bos_id, tokenizer.eos_ids) == (1, {2})


def test_ids_are_the_librarys(tokenizer, library, text):
    ids = tokenizer.encode(text)
    assert ids == library.encode(text)
    assert tokenizer.decode(ids) == text


@settings(max_examples=200)
@given(text=ANY_TEXT)
def test_control_tokens_in_a_text_stay_plain(tokenizer, text):
    ids = tokenizer.encode(text)
    assert not {1, 2} & set(ids)
    # The library writes a space as ▁, so a ▁ of the text comes back as a space.
    assert tokenizer.decode(ids) == text.replace("▁", " ")


def test_control_tokens_where_they_are_allowed(tokenizer, library):
    ids = tokenizer.encode("<s>the text</s><s> of", allow_special=True)
    the_text, of = library.encode("the text"), library.encode(" of")
    assert ids == [1, *the_text, 2, 1, *of]
    assert tokenizer.decode(ids) == "<s>the text</s><s> of"
    assert tokenizer.decode([1, *the_text, 2], skip_special=True) == "the text"


def test_bytes_that_are_no_text_become_replacement_characters(tokenizer, library):
    halves = [library.piece_to_id(f"<0x{byte:02X}>") for byte in "é".encode()]
    assert tokenizer.decode(halves) == "é"
    assert tokenizer.decode(halves[:1]) == "\ufffd"
    assert tokenizer.decode(tokenizer.encode("a\ud800b")) == "a\ufffdb"


@pytest.mark.parametrize("bad_id", [-1, 600])
def test_decoding_refuses_foreign_ids(tokenizer, bad_id):
    with pytest.raises(InputError, match=f"{bad_id} is outside the vocabulary"):
        tokenizer.decode([5, bad_id])


@pytest.mark.parametrize(
    "damage",
    [lambda model: b"", lambda model: model[:1000], lambda model: b"\x00" * 5000],
    ids=["empty", "truncated", "zeros"],
)
def test_a_file_that_is_no_model_is_refused(sentencepiece_model, tmp_path, damage):
    path = tmp_path / "tokenizer.model"
    path.write_bytes(damage(sentencepiece_model.read_bytes()))
    with pytest.raises(InputError, match="not a SentencePiece model") as error:
        SentencePieceTokenizer(path)
    assert str(path) in str(error.value)
    with pytest.raises(InputError, match="no such file"):
        SentencePieceTokenizer(tmp_path / "nowhere.model")
