"""`load_tokenizer` finds the file, knows its kind by its content, and says what is missing."""

import shutil

import pytest

import llama_jax
from llama_jax.errors import InputError
from llama_jax.tokenizers import load_tokenizer
from llama_jax.tokenizers.huggingface import HuggingFaceTokenizer
from llama_jax.tokenizers.llama31 import Llama31Tokenizer
from llama_jax.tokenizers.sentencepiece import SentencePieceTokenizer


def test_the_kind_is_told_by_the_content(rank_file, sentencepiece_model):
    assert type(load_tokenizer(rank_file)) is Llama31Tokenizer
    assert type(load_tokenizer(str(rank_file.parent))) is Llama31Tokenizer
    assert type(load_tokenizer(sentencepiece_model)) is SentencePieceTokenizer
    assert type(llama_jax.load_tokenizer(sentencepiece_model.parent)) is SentencePieceTokenizer


def test_which_file_wins(smollm_folder, rank_file, sentencepiece_model):
    (smollm_folder / "original").mkdir()
    shutil.copy(rank_file, smollm_folder / "original" / "tokenizer.model")
    shutil.copy(sentencepiece_model, smollm_folder / "tokenizer.model")
    assert type(load_tokenizer(smollm_folder)) is HuggingFaceTokenizer
    (smollm_folder / "tokenizer.json").unlink()
    assert type(load_tokenizer(smollm_folder)) is SentencePieceTokenizer
    (smollm_folder / "tokenizer.model").unlink()
    assert type(load_tokenizer(smollm_folder)) is Llama31Tokenizer


def test_the_files_beside_tokenizer_json_count(smollm_folder):
    assert load_tokenizer(smollm_folder / "tokenizer.json").eos_ids == {2}


def test_what_is_missing_is_said(tmp_path):
    (tmp_path / "weights.bin").touch()
    looked_for = "looked for tokenizer.json, tokenizer.model, original/tokenizer.model"
    with pytest.raises(InputError, match=looked_for):
        load_tokenizer(tmp_path)
    with pytest.raises(InputError, match="no such file or folder"):
        load_tokenizer(tmp_path / "nowhere")
    with pytest.raises(InputError, match="not a tokenizer file"):
        load_tokenizer(tmp_path / "weights.bin")


@pytest.mark.parametrize("content", [b"", b"\x00" * 100, b"<html>", b"version https://git-lfs"])
def test_a_file_of_neither_kind_is_refused(tmp_path, content):
    (tmp_path / "tokenizer.model").write_bytes(content)
    with pytest.raises(InputError, match="tokenizer.model"):
        load_tokenizer(tmp_path)
