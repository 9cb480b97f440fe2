"""Hugging Face's files made from Meta's: equal merges, equal ids, loadable by transformers."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_jax.errors import InputError
from llama_jax.tokenizers.huggingface import HuggingFaceTokenizer
from llama_jax.tokenizers.llama31 import SPECIAL_TOKENS, Llama31Tokenizer
from llama_jax.tokenizers.llama31_to_huggingface import llama31_to_huggingface, merges_of_ranks

ANY_TEXT = st.lists(
    st.one_of(st.text(max_size=20), st.sampled_from(["<|eot_id|>", "   ", "\r\n", "12345", "'LL"])),
    max_size=8,
).map("".join)


@pytest.fixture(scope="session")
def files(meta_rank_file):
    return llama31_to_huggingface(
        meta_rank_file,
        model_max_length=131_072,
        eos_token="<|eot_id|>",
        chat_template="{{ bos_token }}",
    )


@pytest.fixture(scope="session")
def original(meta_rank_file):
    return Llama31Tokenizer(meta_rank_file)


@pytest.fixture(scope="session")
def converted(files):
    return HuggingFaceTokenizer(files, place="here")


@pytest.fixture(scope="session")
def transformers_tokenizer(files, tmp_path_factory):
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("huggingface")
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return AutoTokenizer.from_pretrained(folder)


def test_merges_of_a_small_vocabulary_by_hand():
    ranks = {token: rank for rank, token in enumerate([b"a", b"b", b"c", b"ab", b"bc", b"abc"])}
    assert merges_of_ranks(ranks) == [(b"a", b"b"), (b"b", b"c"), (b"a", b"bc"), (b"ab", b"c")]


def test_vocabulary_and_merges_are_those_of_transformers_converter(files, meta_rank_file):
    from transformers.convert_slow_tokenizer import TikTokenConverter

    converter = TikTokenConverter(vocab_file=str(meta_rank_file))
    vocabulary, merges = converter.extract_vocab_merges_from_model(str(meta_rank_file))
    model = json.loads(files["tokenizer.json"])["model"]
    assert model["vocab"] == vocabulary
    assert model["merges"] == [f"{left} {right}" for left, right in merges]


def test_what_transformers_reads(transformers_tokenizer):
    assert len(transformers_tokenizer) == 128_256
    assert transformers_tokenizer.bos_token_id == 128_000
    assert transformers_tokenizer.eos_token_id == 128_009
    assert transformers_tokenizer.pad_token_id == 128_004
    assert transformers_tokenizer.model_max_length == 131_072
    assert transformers_tokenizer.chat_template == "{{ bos_token }}"
    assert transformers_tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS)) == list(
        SPECIAL_TOKENS.values()
    )


def test_ids_are_the_originals(original, converted, transformers_tokenizer, text):
    ids = original.encode(text)
    assert converted.encode(text) == ids
    assert converted.decode(ids) == text
    with_special = original.encode(text, allow_special=True)
    assert converted.encode(text, allow_special=True) == with_special
    assert transformers_tokenizer.encode(text, add_special_tokens=False) == with_special
    assert transformers_tokenizer.encode(text) == [128_000, *with_special]
    assert transformers_tokenizer.decode(ids) == text


@settings(max_examples=300)
@given(text=ANY_TEXT)
def test_any_text_gives_the_originals_ids(original, converted, text):
    assert converted.encode(text) == original.encode(text)
    special = original.encode(text, allow_special=True)
    assert converted.encode(text, allow_special=True) == special


def test_what_is_not_llama3s_is_refused(rank_file, rank_lines, tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(b"".join(rank_lines[:1000]))
    with pytest.raises(InputError, match="holds 1000 ranks"):
        llama31_to_huggingface(
            tmp_path / "tokenizer.model",
            model_max_length=128,
            eos_token="<|eot_id|>",
            chat_template=None,
        )
    with pytest.raises(InputError, match="eos_token: '</s>'"):
        llama31_to_huggingface(
            rank_file, model_max_length=128, eos_token="</s>", chat_template=None
        )
