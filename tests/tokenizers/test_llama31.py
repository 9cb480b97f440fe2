"""Llama 3.1's tokenizer gives Meta's ids on any text, and refuses other files by line."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_jax.errors import InputError
from llama_jax.tokenizers.llama31 import SPECIAL_TOKENS, Llama31Tokenizer

ANY_TEXT = st.lists(
    st.one_of(
        st.text(st.characters(), max_size=20),  # lone surrogates too
        st.sampled_from([*list(SPECIAL_TOKENS)[:12], " " * 40, "\r\n\n", "12345", "'LL", "<|"]),
    ),
    max_size=8,
).map("".join)


@pytest.fixture(scope="session")
def tokenizer(meta_rank_file):
    return Llama31Tokenizer(meta_rank_file)


@pytest.fixture(scope="session")
def meta(meta_rank_file):
    from llama_models.llama3.tokenizer import Tokenizer

    return Tokenizer(meta_rank_file)


def meta_ids(meta, text, *, allow_special=False):
    allowed = "all" if allow_special else None
    return meta.encode(text, bos=False, eos=False, allowed_special=allowed)


def test_special_tokens_are_metas(tokenizer, meta):
    assert tokenizer.special_tokens == meta.special_tokens
    assert tokenizer.vocab_size == meta.n_words == 128_256
    assert tokenizer.bos_id == meta.bos_id == 128_000
    assert tokenizer.eos_ids == set(meta.stop_tokens) == {128_001, 128_008, 128_009}


@pytest.mark.parametrize("allow_special", [False, True])
def test_ids_are_metas(tokenizer, meta, text, allow_special):
    ids = tokenizer.encode(text, allow_special=allow_special)
    assert ids == meta_ids(meta, text, allow_special=allow_special)
    assert tokenizer.decode(ids) == text


@pytest.mark.parametrize(
    "text",
    [
        " " * 100_000,
        "a" * 100_000,
        "\n" * 25_001 + "x" * 50_000 + "\t" * 50_001 + "x" * 24_999,
        "the end" * 70_000,  # cut at 400,000 characters, in the middle of a word
        "日本" * 13_000 + " " * 399_990 + "<|eot_id|>" * 4,
    ],
    ids=["spaces", "letters", "runs at the limit", "a long text", "a cut special token"],
)
def test_very_long_texts_are_cut_where_meta_cuts(tokenizer, meta, text):
    ids = tokenizer.encode(text)
    assert ids == meta_ids(meta, text)
    assert tokenizer.encode(text, allow_special=True) == meta_ids(meta, text, allow_special=True)
    assert tokenizer.decode(ids) == text


@settings(max_examples=300)
@given(text=ANY_TEXT)
def test_any_text_gives_metas_ids_and_comes_back(tokenizer, meta, text):
    plain = tokenizer.encode(text)
    assert plain == meta_ids(meta, text)
    assert max(plain, default=0) < 128_000
    with_special = tokenizer.encode(text, allow_special=True)
    assert with_special == meta_ids(meta, text, allow_special=True)
    well_formed = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    assert tokenizer.decode(plain) == tokenizer.decode(with_special) == well_formed


@settings(max_examples=100)
@given(ids=st.lists(st.integers(0, 128_255), max_size=20))
def test_any_ids_decode_as_metas(tokenizer, meta, ids):
    assert tokenizer.decode(ids) == meta.decode(ids)
    ordinary = [token_id for token_id in ids if token_id < 128_000]
    assert tokenizer.decode(ids, skip_special=True) == meta.decode(ordinary)


def test_a_file_that_anyone_may_have_works_without_metas(rank_file, text):
    tokenizer = Llama31Tokenizer(rank_file)
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert max(ids, default=0) < 128_000


@pytest.mark.parametrize("bad_id", [-1, 128_256])
def test_decoding_refuses_foreign_ids(rank_file, bad_id):
    with pytest.raises(InputError, match=f"{bad_id} is outside the vocabulary"):
        Llama31Tokenizer(rank_file).decode([5, bad_id])


def edited(lines: list[bytes], index: int, *new: bytes) -> bytes:
    return b"".join([*lines[:index], *new, *lines[index + 1 :]])


HOSTILE_FILES = {
    "empty": (lambda lines: b"", "line 1 is not `base64 rank`"),
    "cut at a line": (lambda lines: b"".join(lines[:90_000]), "holds 90000 ranks"),
    "cut in a rank": (lambda lines: b"".join(lines)[:-2], "line 128000 has rank 12799"),
    "cut in a token": (
        lambda lines: b"".join(lines[:70_000]) + lines[70_000][:3],
        "line 70001 is not `base64 rank`",
    ),
    "bad base64": (lambda lines: edited(lines, 7, b"!!== 7\n"), "line 8 has bad base64"),
    "bad padding": (lambda lines: edited(lines, 7, b"B 7\n"), "line 8 has bad base64"),
    "empty token": (lambda lines: edited(lines, 7, b" 7\n"), "line 8 has an empty token"),
    "huge rank": (
        lambda lines: edited(lines, 7, b"Bw== " + b"9" * 5000 + b"\n"),
        "line 8 is not `base64 rank`",
    ),
    "negative rank": (lambda lines: edited(lines, 7, b"Bw== -7\n"), "line 8 is not"),
    "repeated rank": (lambda lines: edited(lines, 7, b"Bw== 6\n"), "line 8 has rank 6"),
    "repeated line": (lambda lines: edited(lines, 7, lines[7], lines[7]), "line 9 has rank 7"),
    "repeated token": (lambda lines: edited(lines, 300, b"Bw== 300\n"), "token of line 8"),
    "no single byte": (lambda lines: edited(lines, 7, b"AAAAAA== 7\n"), "single byte 0x07"),
    "one more": (lambda lines: b"".join(lines) + b"AAAAAA== 128000\n", "holds 128001 ranks"),
    "binary": (lambda lines: bytes(range(256)) * 9, "line 1 is not `base64 rank`"),
    "Git LFS pointer": (
        lambda lines: b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n",
        "line 1 is not `base64 rank`",
    ),
}


@pytest.mark.parametrize("case", HOSTILE_FILES)
def test_hostile_files_are_refused_by_name_and_line(rank_lines, tmp_path, case):
    make_content, message = HOSTILE_FILES[case]
    path = tmp_path / "tokenizer.model"
    path.write_bytes(make_content(rank_lines))
    with pytest.raises(InputError, match=message) as error:
        Llama31Tokenizer(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_a_missing_and_an_oversized_file_are_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        Llama31Tokenizer(tmp_path / "tokenizer.model")
    weights = tmp_path / "consolidated.00.pth"
    with weights.open("wb") as file:
        file.truncate(65 << 20)
    with pytest.raises(InputError, match="larger than 64 MiB"):
        Llama31Tokenizer(weights)


def test_llama4s_rank_file_is_refused(meta_rank_file):
    llama4 = Path(meta_rank_file).parent.parent / "llama4" / "tokenizer.model"
    with pytest.raises(InputError, match="holds 200000 ranks, Llama 3's holds 128000"):
        Llama31Tokenizer(llama4)
