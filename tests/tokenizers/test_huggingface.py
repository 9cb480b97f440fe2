"""`tokenizer.json` gives transformers' ids, and special tokens in a text stay plain."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_jax.errors import InputError
from llama_jax.tokenizers.huggingface import HuggingFaceTokenizer
from llama_jax.tokenizers.llama31_to_huggingface import llama31_to_huggingface

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
ANY_TEXT = st.lists(
    st.one_of(st.text(max_size=20), st.sampled_from([*SPECIAL, "  1", "<|", "\r\n"])), max_size=8
).map("".join)


def write_json(path, content):
    path.write_text(json.dumps(content))


def edit_json(path, **changes):
    write_json(path, {**json.loads(path.read_text()), **changes})


def test_what_the_files_say(smollm_folder):
    tokenizer = HuggingFaceTokenizer.from_folder(smollm_folder)
    assert tokenizer.vocab_size == 500
    assert tokenizer.bos_id == 1
    assert tokenizer.eos_ids == {2}
    assert tokenizer.special_tokens == {text: token_id for token_id, text in enumerate(SPECIAL)}


def test_ids_are_transformers(smollm_folder, text):
    from transformers import AutoTokenizer

    ours = HuggingFaceTokenizer.from_folder(smollm_folder)
    for allow_special in (False, True):
        theirs = AutoTokenizer.from_pretrained(
            smollm_folder, split_special_tokens=not allow_special
        )
        ids = ours.encode(text, allow_special=allow_special)
        assert ids == theirs.encode(text, add_special_tokens=False)
        assert ours.decode(ids) == text


@settings(max_examples=200)
@given(text=ANY_TEXT)
def test_special_tokens_in_a_text_stay_plain(smollm_json, text):
    tokenizer = HuggingFaceTokenizer({"tokenizer.json": smollm_json}, place="here")
    ids = tokenizer.encode(text)
    assert min(ids, default=3) >= 3
    assert tokenizer.decode(ids) == tokenizer.decode(ids, skip_special=True) == text
    with_special = tokenizer.encode(text, allow_special=True)
    assert sum(token_id < 3 for token_id in with_special) == sum(map(text.count, SPECIAL))
    assert tokenizer.decode(with_special) == text
    assert tokenizer.encode(text) == ids  # allowing them once changes nothing


def test_skip_special_leaves_special_tokens_out(smollm_folder):
    tokenizer = HuggingFaceTokenizer.from_folder(smollm_folder)
    ids = tokenizer.encode("<|im_start|>the text<|im_end|>", allow_special=True)
    assert ids[0] == 1 and ids[-1] == 2
    assert tokenizer.decode(ids, skip_special=True) == "the text"


def test_llama3_style_file_adds_no_bos_and_finds_no_special_token(rank_file, tmp_path):
    files = llama31_to_huggingface(
        rank_file, model_max_length=128, eos_token="<|eot_id|>", chat_template=None
    )
    tokenizer = HuggingFaceTokenizer(files, place="here")
    text = "<|begin_of_text|>hi<|eot_id|>"
    assert max(tokenizer.encode(text)) < 128_000
    with_special = tokenizer.encode(text, allow_special=True)
    assert (with_special[0], with_special[-1]) == (128_000, 128_009)
    assert 128_000 not in tokenizer.encode("hi", allow_special=True)


def test_lone_surrogates_become_replacement_characters(smollm_folder):
    tokenizer = HuggingFaceTokenizer.from_folder(smollm_folder)
    assert tokenizer.decode(tokenizer.encode("a\ud800b")) == "a\ufffdb"


def test_truncation_and_padding_of_the_file_are_switched_off(smollm_folder):
    edit_json(
        smollm_folder / "tokenizer.json",
        truncation={
            "direction": "Right",
            "max_length": 4,
            "strategy": "LongestFirst",
            "stride": 0,
        },
        padding={
            "strategy": {"Fixed": 64},
            "direction": "Right",
            "pad_to_multiple_of": None,
            "pad_id": 0,
            "pad_type_id": 0,
            "pad_token": "<|endoftext|>",
        },
    )
    tokenizer = HuggingFaceTokenizer.from_folder(smollm_folder)
    for text in ("a", "the text " * 50):
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_a_message_header_kept_as_an_ordinary_added_token_is_special(smollm_folder):
    definition = json.loads((smollm_folder / "tokenizer.json").read_text())
    for token in definition["added_tokens"]:
        token["special"] = False
    write_json(smollm_folder / "tokenizer.json", definition)
    edit_json(
        smollm_folder / "tokenizer_config.json",
        added_tokens_decoder={"0": {"content": "<|endoftext|>", "special": True}},
    )
    tokenizer = HuggingFaceTokenizer.from_folder(smollm_folder)
    assert min(tokenizer.encode("".join(SPECIAL))) >= 3
    assert tokenizer.encode("".join(SPECIAL), allow_special=True) == [0, 1, 2]
    assert tokenizer.special_tokens == {text: token_id for token_id, text in enumerate(SPECIAL)}


def test_stop_ids_are_generation_configs(smollm_folder):
    write_json(smollm_folder / "generation_config.json", {"eos_token_id": [0, 2]})
    assert HuggingFaceTokenizer.from_folder(smollm_folder).eos_ids == {0, 2}
    write_json(smollm_folder / "generation_config.json", {"eos_token_id": 0})
    assert HuggingFaceTokenizer.from_folder(smollm_folder).eos_ids == {0}
    write_json(smollm_folder / "generation_config.json", {"max_length": 9})
    assert HuggingFaceTokenizer.from_folder(smollm_folder).eos_ids == {2}


def test_roles_from_the_older_file(smollm_folder):
    (smollm_folder / "tokenizer_config.json").unlink()
    write_json(
        smollm_folder / "special_tokens_map.json",
        {"bos_token": {"content": "<|im_start|>", "lstrip": False}, "eos_token": "<|im_end|>"},
    )
    tokenizer = HuggingFaceTokenizer.from_folder(smollm_folder)
    assert (tokenizer.bos_id, tokenizer.eos_ids) == (1, {2})
    (smollm_folder / "special_tokens_map.json").unlink()
    tokenizer = HuggingFaceTokenizer.from_folder(smollm_folder)
    assert (tokenizer.bos_id, tokenizer.eos_ids) == (None, frozenset())


def test_a_text_that_has_no_plain_spelling_is_refused():
    """A unigram model finds `<s>` in its vocabulary whatever the library's switch says."""
    import tokenizers
    from tokenizers import models

    vocabulary = [("<unk>", 0.0), ("<s>", -1.0), ("a", -1.0), ("b", -1.0)]
    unigram = tokenizers.Tokenizer(models.Unigram(vocabulary, unk_id=0, byte_fallback=False))
    unigram.add_special_tokens(["<s>", "<unk>"])
    files = {
        "tokenizer.json": unigram.to_str().encode(),
        "tokenizer_config.json": b'{"bos_token": "<s>", "unk_token": "<unk>"}',
    }
    tokenizer = HuggingFaceTokenizer(files, place="here")
    assert tokenizer.encode("abc") == [2, 3, 0]
    with pytest.raises(InputError, match="here/tokenizer.json: cannot encode a special token"):
        tokenizer.encode("a<s>b")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("tokenizer.json", "{", "the tokenizers library cannot read it"),
        ("tokenizer.json", '{"model": {"type": "BPE"}}', "the tokenizers library cannot read it"),
        ("tokenizer.json", b"\xff\xfe", "not UTF-8"),
        ("tokenizer_config.json", "{", "not valid JSON"),
        ("tokenizer_config.json", "[]", "must be a JSON object"),
        ("tokenizer_config.json", '{"eos_token": "<nowhere>"}', "eos_token is '<nowhere>'"),
        ("tokenizer_config.json", '{"bos_token": 7}', "7 is not the text of a token"),
        ("generation_config.json", '{"eos_token_id": ["2"]}', "eos_token_id must be"),
        ("generation_config.json", '{"eos_token_id": true}', "eos_token_id must be"),
        ("special_tokens_map.json", b"\x00", "not valid JSON"),
    ],
)
def test_hostile_files_are_refused_by_name(smollm_folder, name, content, message):
    (smollm_folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=message) as error:
        HuggingFaceTokenizer.from_folder(smollm_folder)
    assert str(smollm_folder) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("bad_id", [-1, 500])
def test_decoding_refuses_foreign_ids(smollm_folder, bad_id):
    with pytest.raises(InputError, match=f"{bad_id} is outside the vocabulary"):
        HuggingFaceTokenizer.from_folder(smollm_folder).decode([5, bad_id])
