"""Hugging Face's files made from GGUF metadata give the ids of the tokenizer that the GGUF was made
from, and metadata that do not fit together are refused."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_jax.errors import InputError
from llama_jax.tokenizers.gguf_tokenizer import huggingface_files_from_gguf
from llama_jax.tokenizers.huggingface import HuggingFaceTokenizer
from llama_jax.tokenizers.llama31 import SPECIAL_TOKENS, Llama31Tokenizer
from llama_jax.tokenizers.llama31_to_huggingface import llama31_to_huggingface

SMOLLM_SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


@pytest.fixture(scope="session")
def metadata(smollm_json):
    """What llama.cpp's converter writes for a tokenizer like SmolLM2's."""
    model = json.loads(smollm_json)["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    return {
        "general.architecture": "llama",
        "llama.context_length": 8192,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3 if token in SMOLLM_SPECIAL else 1 for token in tokens],
        "tokenizer.ggml.merges": [" ".join(merge) for merge in model["merges"]],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.padding_token_id": 2,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": "{{ messages }}",
    }


@pytest.fixture(scope="session")
def original(smollm_json):
    return HuggingFaceTokenizer({"tokenizer.json": smollm_json}, place="original")


@pytest.fixture(scope="session")
def converted(metadata):
    return HuggingFaceTokenizer(huggingface_files_from_gguf(metadata), place="converted")


def test_what_the_files_say(converted, original):
    assert converted.vocab_size == original.vocab_size
    assert converted.special_tokens == original.special_tokens
    assert (converted.bos_id, converted.eos_ids) == (1, {2})


@pytest.mark.parametrize("allow_special", [False, True])
def test_ids_are_the_originals(converted, original, text, allow_special):
    ids = converted.encode(text, allow_special=allow_special)
    assert ids == original.encode(text, allow_special=allow_special)
    assert converted.decode(ids) == text


@settings(max_examples=200)
@given(text=st.lists(st.text(max_size=9) | st.sampled_from(["  12", *SMOLLM_SPECIAL])).map("".join))
def test_any_text_gives_the_originals_ids(converted, original, text):
    assert converted.encode(text) == original.encode(text)


def test_transformers_loads_the_files(metadata, converted, tmp_path, text):
    from transformers import AutoTokenizer

    for name, content in huggingface_files_from_gguf(metadata).items():
        (tmp_path / name).write_bytes(content)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert theirs.encode(text) == converted.encode(text, allow_special=True)
    assert (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id) == (1, 2, 2)
    assert (theirs.chat_template, theirs.model_max_length) == ("{{ messages }}", 8192)


@pytest.fixture(scope="session")
def llama3(rank_file):
    """The vocabulary as llama.cpp's converter takes it from Hugging Face's files: special tokens
    among the tokens."""
    source = llama31_to_huggingface(
        rank_file, model_max_length=128, eos_token="<|eot_id|>", chat_template=None
    )
    model = json.loads(source["tokenizer.json"])["model"]
    files = huggingface_files_from_gguf(
        {
            "tokenizer.ggml.model": "gpt2",
            "tokenizer.ggml.pre": "llama-bpe",
            "tokenizer.ggml.tokens": [*model["vocab"], *SPECIAL_TOKENS],
            "tokenizer.ggml.token_type": [1] * 128_000 + [3] * 256,
            "tokenizer.ggml.merges": model["merges"],
            "tokenizer.ggml.bos_token_id": 128_000,
            "tokenizer.ggml.eos_token_id": 128_009,
            "tokenizer.ggml.add_bos_token": True,
        }
    )
    return HuggingFaceTokenizer(files, place="here")


@pytest.fixture(scope="session")
def rank_file_tokenizer(rank_file):
    return Llama31Tokenizer(rank_file)


def test_llama3_ids_are_those_of_the_rank_file(llama3, rank_file_tokenizer, text):
    original = rank_file_tokenizer
    assert llama3.special_tokens == original.special_tokens
    for allow_special in (False, True):
        ids = original.encode(text, allow_special=allow_special)
        assert llama3.encode(text, allow_special=allow_special) == ids


def test_gpt2_words(metadata, smollm_json):
    import tokenizers
    from tokenizers import pre_tokenizers

    gpt2 = tokenizers.Tokenizer.from_str(smollm_json.decode())
    gpt2.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    files = huggingface_files_from_gguf({**metadata, "tokenizer.ggml.pre": "gpt-2"})
    text = "a  1 and   22, they'll see"
    assert HuggingFaceTokenizer(files, place="here").encode(text) == gpt2.encode(text).ids
    assert huggingface_files_from_gguf(metadata) != files


def test_user_defined_tokens_are_found_in_a_text_and_are_not_special(metadata):
    token_types = list(metadata["tokenizer.ggml.token_type"])
    token_types[0] = 4
    files = huggingface_files_from_gguf({**metadata, "tokenizer.ggml.token_type": token_types})
    tokenizer = json.loads(files["tokenizer.json"])
    assert [token["special"] for token in tokenizer["added_tokens"]] == [False, True, True]


HOSTILE_METADATA = {
    "kind": ({"tokenizer.ggml.model": "t5"}, "tokenizer.ggml.model is 't5'"),
    "EOS to add": ({"tokenizer.ggml.add_eos_token": True}, "add_eos_token is true"),
    "no kind": ({"tokenizer.ggml.model": None}, "tokenizer.ggml.model is None"),
    "words": ({"tokenizer.ggml.pre": "qwen2"}, "tokenizer.ggml.pre is 'qwen2'"),
    "unknown words": ({"tokenizer.ggml.pre": "default"}, "tokenizer.ggml.pre is 'default'"),
    "no words": ({"tokenizer.ggml.pre": None}, "tokenizer.ggml.pre is None"),
    "words of a wrong type": ({"tokenizer.ggml.pre": ["smollm"]}, "tokenizer.ggml.pre is"),
    "no tokens": ({"tokenizer.ggml.tokens": None}, "tokenizer.ggml.tokens is missing"),
    "repeated token": ({"tokenizer.ggml.tokens": ["a"] * 500}, "repeats a token"),
    "wrong type of token": ({"tokenizer.ggml.tokens": [["a"]] * 500}, "repeats a token or"),
    "few token types": ({"tokenizer.ggml.token_type": [1, 1]}, "500 tokens but 2 token types"),
    "no merges": ({"tokenizer.ggml.merges": None}, "tokenizer.ggml.merges is missing"),
    "merge of one": ({"tokenizer.ggml.merges": ["a"]}, r"merges\[0\] is 'a'"),
    "merge of unknown": ({"tokenizer.ggml.merges": ["a 日"]}, r"merges\[0\]"),
    "merge of a wrong type": ({"tokenizer.ggml.merges": [7]}, r"merges\[0\] is 7"),
    "BOS outside": ({"tokenizer.ggml.bos_token_id": 500}, "bos_token_id is 500"),
    "EOS of a wrong type": ({"tokenizer.ggml.eos_token_id": "2"}, "eos_token_id is '2'"),
    "BOS to add but none": (
        {"tokenizer.ggml.add_bos_token": True, "tokenizer.ggml.bos_token_id": None},
        "bos_token_id is missing",
    ),
    "template of a wrong type": ({"tokenizer.chat_template": 7}, "chat_template must be a string"),
}


@pytest.mark.parametrize("case", HOSTILE_METADATA)
def test_hostile_metadata_are_refused(metadata, case):
    changes, message = HOSTILE_METADATA[case]
    changed = {key: value for key, value in {**metadata, **changes}.items() if value is not None}
    with pytest.raises(InputError, match=message) as error:
        huggingface_files_from_gguf(changed, place="model.gguf")
    assert "model.gguf" in str(error.value) and "\n" not in str(error.value)
