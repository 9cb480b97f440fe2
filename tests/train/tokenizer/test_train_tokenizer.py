"""`llama-jax tokenizer train`: the same bytes again, and what a user can get wrong."""

import dataclasses
import hashlib
import json

import pytest
import transformers

from llama_jax.__main__ import main
from llama_jax.chat.chat_format import chat_format_for
from llama_jax.chat.llama31_format import Llama31Format
from llama_jax.chat.messages import Message
from llama_jax.errors import InputError
from llama_jax.tokenizers import load_tokenizer, tokenizer_hash
from llama_jax.tokenizers.sentencepiece import SentencePieceTokenizer
from tests.train.tokenizer.conftest import SETTINGS, THAI
from train.data.packed_rows import PackedRows
from train.tokenizer import count_corpus as counting
from train.tokenizer.train_tokenizer import train_tokenizer


@pytest.fixture(scope="module")
def folder(inputs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "tokenizer"
    train_tokenizer(inputs, SETTINGS, output=folder)
    return folder


def test_the_same_input_gives_the_same_bytes(folder, inputs, tmp_path):
    train_tokenizer(inputs, SETTINGS, output=tmp_path / "again")
    names = sorted(path.name for path in folder.iterdir())
    assert names == sorted(path.name for path in (tmp_path / "again").iterdir())
    for name in names:
        assert (folder / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name


def test_the_card_says_of_what_it_was_made(folder, corpus_folder):
    card = json.loads((folder / "card.json").read_text())
    assert card["tokenizer_sha256"] == tokenizer_hash(load_tokenizer(folder))
    thai = card["languages"]["th"]
    content = (corpus_folder / "th.txt").read_bytes()
    assert thai["files"] == [
        {
            "path": f"{corpus_folder}/th.txt",
            "num_bytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
        }
    ]
    assert thai["num_characters"] == len(content.decode())
    assert sum(language["share"] for language in card["languages"].values()) == pytest.approx(1)
    assert card["vocab_size"] == 700 and card["temperature"] == 2.0


def test_it_is_loaded_by_all_that_read_tokenizers(folder):
    ours = load_tokenizer(folder)
    ids = SentencePieceTokenizer(folder / "tokenizer.model").encode(f"def f(x): {THAI}\n")
    assert ours.encode(f"def f(x): {THAI}\n") == ids
    assert list(ours.special_tokens)[:2] == ["<|begin_of_text|>", "<|end_of_text|>"]


def test_chat_in_llama_31s_format_is_meta_s_and_the_template_is_transformers(folder):
    ours = load_tokenizer(folder)
    dialog = [Message("system", "Be brief."), Message("user", "def? <|eot_id|>")]
    special = ours.special_tokens
    tokens = Llama31Format(ours).encode_prompt(dialog)
    assert tokens.count(special["<|eot_id|>"]) == 2  # the user's is plain text
    template = chat_format_for(folder, ours)
    assert template.name == "template"
    theirs = transformers.AutoTokenizer.from_pretrained(folder).apply_chat_template(
        [{"role": "user", "content": "Hello, you"}], add_generation_prompt=True, return_dict=False
    )
    assert template.encode_prompt([Message("user", "Hello, you")]) == theirs


def test_data_is_prepared_with_it(folder, inputs, corpus_folder, tmp_path):
    arguments = [f"{corpus_folder}/code.txt", "--tokenizer", f"{folder}", "--row-length", "64"]
    with pytest.raises(SystemExit) as stop:
        main(["data", "prepare", *arguments, "--output", f"{tmp_path}/rows", "--workers", "1"])
    assert not stop.value.code
    manifest = PackedRows(tmp_path / "rows").manifest
    special = load_tokenizer(folder).special_tokens
    assert manifest.bos_id == special["<|begin_of_text|>"]
    assert manifest.eos_id == special["<|end_of_text|>"]


def test_temperature_gives_a_small_language_tokens(inputs, tmp_path):
    def num_thai(temperature):
        settings = dataclasses.replace(SETTINGS, temperature=temperature)
        train_tokenizer(inputs, settings, output=tmp_path / f"t{temperature}")
        return len(load_tokenizer(tmp_path / f"t{temperature}").encode(THAI))

    assert num_thai(5.0) < num_thai(1.0)


def test_bounded_memory_is_a_sample(inputs, tmp_path, monkeypatch):
    monkeypatch.setattr(counting, "MAX_DISTINCT_CHARACTERS", 4_000)
    settings = dataclasses.replace(SETTINGS, vocab_size=500)
    card = train_tokenizer(inputs, settings, output=tmp_path / "small")
    assert card["languages"]["code"]["sampled"] <= 0.5
    assert card["languages"]["th"]["sampled"] == 1


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        main(["tokenizer", "train", *map(str, arguments)])
    return stop.value.code, capsys.readouterr()


SMALL = ("--vocab-size", "500", "--num-special-tokens", "16")


@pytest.mark.parametrize(
    "options, message",
    [
        (("--vocab-size", "9000"), "--vocab-size 9000: the corpus is too small for so many"),
        (("--vocab-size", "270", "--num-special-tokens", "12"), "--vocab-size 270: too small for"),
        (("--vocab-size", "300"), "--vocab-size must be more than 513"),
        (("--temperature", "0.5"), "--temperature must be at least 1"),
        (("--temperature", "nan"), "--temperature must be at least 1"),
        (("--character-coverage", "2"), "--character-coverage must be from 0.9 to 1"),
        (("--special-tokens", "<|eot_id|>"), "<|eot_id|>: is one of Llama 3.1's already"),
        (("--num-special-tokens", "3"), "--num-special-tokens must be from 12"),
        (("--seed", "-1"), "--seed must be at least 0"),
    ],
)
def test_bad_options_are_one_line_and_leave_nothing(inputs, tmp_path, capsys, options, message):
    output = tmp_path / "out"
    code, printed = run(capsys, *inputs, "--output", output, "--quiet", *options)
    assert code == 2
    assert message in printed.err and printed.err.count("\n") == 1
    assert not output.exists() and not output.with_name("out.incomplete").exists()


def test_damaged_text_ends_the_work_or_is_counted(corpus_folder, tmp_path, capsys):
    path = tmp_path / "bad.txt"
    path.write_bytes((corpus_folder / "code.txt").read_bytes() + b"\nno \xff text\n")
    place = f"{path}: byte {path.stat().st_size - 7}: not UTF-8 text"
    code, printed = run(capsys, path, "--output", tmp_path / "out", "--quiet", *SMALL)
    assert code == 2 and place in printed.err and "--on-error skip" in printed.err
    code, printed = run(capsys, path, "--output", tmp_path / "out", "--on-error", "skip", *SMALL)
    assert code == 0
    assert "1 damaged records" in printed.out and place in printed.err
    assert json.loads((tmp_path / "out" / "card.json").read_text())["languages"]["text"][
        "num_skipped"
    ] == 1  # fmt: skip


def test_files_without_text_and_outputs_that_are_there(inputs, tmp_path, capsys):
    (tmp_path / "empty.txt").write_text("")
    code, printed = run(capsys, f"it={tmp_path}/empty.txt", "--output", tmp_path / "out", *SMALL)
    assert code == 2 and "it: there is no text in its 1 files" in printed.err
    code, printed = run(capsys, *inputs, "--output", tmp_path, "--quiet", *SMALL)
    assert code == 2 and str(tmp_path) in printed.err
    assert (tmp_path / "empty.txt").exists()


def test_settings_are_checked_before_anything_is_read():
    with pytest.raises(InputError, match="--vocab-size must be more than 273"):
        dataclasses.replace(SETTINGS, vocab_size=100)
