"""A SentencePiece model put together from GGUF metadata gives the ids of the model it came from."""

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_jax.errors import InputError
from llama_jax.tokenizers import load_tokenizer
from llama_jax.tokenizers.gguf_tokenizer import huggingface_files_from_gguf
from llama_jax.tokenizers.sentencepiece import SentencePieceTokenizer


@pytest.fixture(scope="session")
def original(sentencepiece_model):
    return SentencePieceTokenizer(sentencepiece_model)


@pytest.fixture(scope="session")
def metadata(sentencepiece_model):
    """What llama.cpp's converter takes from a SentencePiece model."""
    model = sentencepiece.SentencePieceProcessor(model_file=str(sentencepiece_model))
    ids = range(model.get_piece_size())

    def token_type(token_id):
        kinds = {2: model.is_unknown, 3: model.is_control, 6: model.is_byte}
        return next((number for number, holds in kinds.items() if holds(token_id)), 1)

    return {
        "general.architecture": "llama",
        "llama.context_length": 2048,
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": [model.id_to_piece(token_id) for token_id in ids],
        "tokenizer.ggml.scores": [model.get_score(token_id) for token_id in ids],
        "tokenizer.ggml.token_type": [token_type(token_id) for token_id in ids],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_eos_token": False,
    }


@pytest.fixture(scope="session")
def folder(metadata, tmp_path_factory):
    folder = tmp_path_factory.mktemp("from_gguf")
    for name, content in huggingface_files_from_gguf(metadata).items():
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture(scope="session")
def converted(folder):
    return load_tokenizer(folder)


def test_what_the_model_says(converted, original):
    assert converted.vocab_size == original.vocab_size
    assert converted.special_tokens == original.special_tokens
    assert (converted.bos_id, converted.eos_ids) == (1, {2})


def test_ids_are_the_originals(converted, original, text):
    for allow_special in (False, True):
        ids = converted.encode(text, allow_special=allow_special)
        assert ids == original.encode(text, allow_special=allow_special)
        assert converted.decode(ids) == original.decode(ids)


@settings(max_examples=200)
@given(text=st.text())
def test_any_text_gives_the_originals_ids(converted, original, text):
    assert converted.encode(text) == original.encode(text)


def test_transformers_loads_the_folder(folder, converted):
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(folder)
    text = "the text of the test, größtenteils 123 日本語"
    assert theirs.encode(text) == [1, *converted.encode(text)]
    assert theirs.model_max_length == 2048


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokenizer.ggml.scores": None}, "tokenizer.ggml.scores is missing"),
        ({"tokenizer.ggml.scores": [0.0]}, "600 tokens but 1 scores"),
        ({"tokenizer.ggml.scores": ["a"] * 600}, "of the wrong kind"),
        ({"tokenizer.ggml.token_type": [99] * 600}, "of the wrong kind|makes no SentencePiece"),
        ({"tokenizer.ggml.token_type": [1] * 600}, "makes no SentencePiece model"),
    ],
)
def test_hostile_metadata_are_refused(metadata, changes, message):
    changed = {key: value for key, value in {**metadata, **changes}.items() if value is not None}
    with pytest.raises(InputError, match=message) as error:
        huggingface_files_from_gguf(changed, place="model.gguf")
    assert "model.gguf" in str(error.value) and "\n" not in str(error.value)
