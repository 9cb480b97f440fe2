"""Training on counts of words is training on the text, and the model loses nothing of any text."""

import io

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st
from sentencepiece import sentencepiece_model_pb2 as protobuf

from llama_jax.errors import InputError
from llama_jax.tokenizers.llama31 import NAMED_SPECIAL_TOKENS
from llama_jax.tokenizers.sentencepiece import SentencePieceTokenizer
from llama_jax.tokenizers.token_bytes import TokenBytes
from llama_jax.tokenizers.training.sentencepiece_training import train_sentencepiece
from llama_jax.tokenizers.training.special_tokens import special_tokens
from llama_jax.tokenizers.training.words import count_words

TRICKY = [
    "▁",
    "▅",
    " ",
    "  ",
    "\t",
    "\n",
    "\r\n",
    "\x00",
    "<0x41>",
    "<unk>",
    "<|eot_id|>",
    "é",
    "ท",
]
ANY_TEXT = st.lists(st.one_of(st.text(max_size=20), st.sampled_from(TRICKY)), max_size=10).map(
    "".join
)


@pytest.fixture(scope="module")
def tokenizer(folder):
    return SentencePieceTokenizer(folder / "tokenizer.model")


def test_pieces_are_those_of_training_on_the_lines(corpus_text, model_file):
    content = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus_text.split("\n")),
        model_writer=content,
        model_type="bpe",
        vocab_size=1200 - 16,
        byte_fallback=True,
        split_digits=True,
        allow_whitespace_only_pieces=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=False,
        character_coverage=1.0,
        bos_id=-1,
        eos_id=-1,
        pad_id=-1,
        unk_id=0,
        minloglevel=2,
    )
    lines = protobuf.ModelProto.FromString(content.getvalue()).pieces
    ours = protobuf.ModelProto.FromString(model_file).pieces[:-16]
    assert [(p.piece, p.score, p.type) for p in ours] == [
        (p.piece.replace("▁", " "), p.score, p.type) for p in lines
    ]


def test_the_same_counts_give_the_same_bytes(corpus_text, model_file):
    words = dict(reversed(count_words(corpus_text).items()))
    again = train_sentencepiece(
        words, vocab_size=1200, special_tokens=special_tokens(16), character_coverage=1.0
    )
    assert again == model_file


@settings(max_examples=200)
@given(text=ANY_TEXT)
def test_any_unicode_comes_back(tokenizer, text):
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert max(ids, default=0) < 1200 - 16 and 0 not in ids


def test_digits_stand_alone_and_special_tokens_at_the_end(tokenizer, corpus_text):
    assert len(tokenizer.encode("20061")) == 5
    first = list(tokenizer.special_tokens.items())[: len(NAMED_SPECIAL_TOKENS)]
    assert first == [(name, 1184 + place) for place, name in enumerate(NAMED_SPECIAL_TOKENS)]
    assert (tokenizer.bos_id, tokenizer.eos_ids) == (1184, {1185})
    assert b"".join(map(TokenBytes(tokenizer).of, tokenizer.encode(" dignità ▁7"))) == (
        " dignità ▁7".encode()
    )


def train(text, **changes):
    arguments = {"vocab_size": 600, "special_tokens": special_tokens(16), "character_coverage": 1.0}
    return train_sentencepiece(count_words(text), **{**arguments, **changes})


def test_a_corpus_too_small_says_which_size_it_allows(corpus_text):
    with pytest.raises(InputError, match="--vocab-size 60000: .*too small.* at most ") as error:
        train(corpus_text, vocab_size=60_000)
    most = int(str(error.value).split("at most ")[1].split(",")[0])
    assert len(protobuf.ModelProto.FromString(train(corpus_text, vocab_size=most)).pieces) == most
    with pytest.raises(InputError, match=f"at most {most},"):
        train(corpus_text, vocab_size=most + 1)


def test_a_vocabulary_too_small_says_which_size_it_needs(corpus_text):
    with pytest.raises(InputError, match="--vocab-size 300: too small .* at least ") as error:
        train(corpus_text, vocab_size=300)
    least = int(str(error.value).split("at least ")[1].split(",")[0])
    train(corpus_text, vocab_size=least)
    with pytest.raises(InputError, match=f"at least {least},"):
        train(corpus_text, vocab_size=least - 1)


def test_a_special_token_that_is_a_word_of_the_text_is_refused(corpus_text):
    with pytest.raises(InputError, match="--special-tokens self: the text has it as a token"):
        train(corpus_text, special_tokens=special_tokens(16, own=["self"]), vocab_size=1200)
