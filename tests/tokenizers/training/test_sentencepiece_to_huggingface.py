"""`tokenizer.json` has the ids of `tokenizer.model`: in the library, in transformers, in ours."""

import itertools

import pytest
import sentencepiece
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_jax.tokenizers import load_tokenizer
from llama_jax.tokenizers.training.sentencepiece_to_huggingface import (
    merges_of_scores,
    sentencepiece_to_huggingface,
)

# Few letters, so that pieces overlap, beside any Unicode.
TEXTS = st.one_of(
    st.text(max_size=60),
    st.text("sel ", max_size=60),
    st.text("ane", max_size=60),
    st.text("_-=# \n", max_size=60),
    st.lists(st.sampled_from(["▁", " ", "\n", "self", "  ", "12", "สิทธิ", "é", "droits"])).map(
        "".join
    ),
)


@pytest.fixture(scope="module")
def model(model_file):
    return sentencepiece.SentencePieceProcessor(model_proto=model_file)


@pytest.fixture(scope="module")
def ours(folder):
    return load_tokenizer(folder)


@pytest.fixture(scope="module")
def theirs(folder):
    return transformers.AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("name", ["AutoTokenizer", "PreTrainedTokenizerFast"])
def test_ids_of_the_corpus(model, ours, folder, name, corpus_text):
    theirs = getattr(transformers, name).from_pretrained(folder)
    ids = model.encode(corpus_text)
    assert ours.encode(corpus_text) == ids
    assert theirs.encode(corpus_text, add_special_tokens=False) == ids
    assert theirs.encode(corpus_text) == [model.bos_id(), *ids]
    assert theirs.decode(ids) == ours.decode(ids) == corpus_text


@settings(max_examples=200)
@given(text=TEXTS)
def test_ids_of_any_text(model, ours, theirs, text):
    ids = model.encode(text)
    assert ours.encode(text) == ids
    assert theirs.encode(text, add_special_tokens=False) == ids
    assert theirs.decode(ids) == ours.decode(ids) == text


def test_what_the_tokens_are_for(ours, theirs, model):
    assert ours.bos_id == theirs.bos_token_id == model.bos_id() == 1184
    assert ours.eos_ids == {1185, 1192, 1193}
    assert theirs.eos_token == "<|eot_id|>"
    assert theirs.pad_token_id == model.pad_id() == 1188
    assert len(theirs) == ours.vocab_size == 1200
    assert theirs.apply_chat_template([{"role": "user", "content": "?"}], tokenize=False) == (
        "<|begin_of_text|>"
    )


def test_a_base_model_ends_with_its_text(model_file):
    files = sentencepiece_to_huggingface(model_file, chat_template=None)
    assert b"<|end_of_text|>" in files["special_tokens_map.json"]
    assert b"chat_template" not in files["tokenizer_config.json"]


def leftmost(text, pieces):
    """SentencePiece's rule: the neighbours that make the best piece, the leftmost of them."""
    symbols = list(text)
    while True:
        found = [
            (pieces.index(left + right), place)
            for place, (left, right) in enumerate(itertools.pairwise(symbols))
            if left + right in pieces
        ]
        if not found:
            return symbols
        place = min(found)[1]
        symbols[place : place + 2] = ["".join(symbols[place : place + 2])]


def listed(text, merges):
    """The library's rule: the pair that comes first in the list, the leftmost of them."""
    symbols = list(text)
    while True:
        found = [
            (merges.index(pair), place)
            for place, pair in enumerate(itertools.pairwise(symbols))
            if pair in merges
        ]
        if not found:
            return symbols
        place = min(found)[1]
        symbols[place : place + 2] = ["".join(symbols[place : place + 2])]


@pytest.mark.parametrize(
    "pieces",
    [
        ["ba", "aba", "ab", "ababa", "a", "b"],
        ["ab", "aba", "ba", "ababa", "a", "b"],
        ["aa", "aaa", "aaaa", "ba", "a", "b"],
        ["ab", "bab", "abab", "babab", "a", "b"],
    ],
)
def test_of_overlapping_pairs_the_left_one_merges(pieces):
    merges = merges_of_scores({piece: -place for place, piece in enumerate(pieces)})
    for length in range(1, 11):
        for letters in itertools.product("ab", repeat=length):
            text = "".join(letters)
            assert listed(text, merges) == leftmost(text, pieces), text
