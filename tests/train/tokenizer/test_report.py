"""`llama-jax tokenizer report`: numbers that can be counted by hand, table, JSON and picture."""

import json

import pytest

from llama_jax.__main__ import main
from llama_jax.tokenizers.sentencepiece import SentencePieceTokenizer
from tests.train.tokenizer.conftest import SETTINGS, THAI
from train.tokenizer.measure import cut_texts, measure
from train.tokenizer.train_tokenizer import train_tokenizer


@pytest.fixture(scope="module")
def folder(inputs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("reported") / "small"
    train_tokenizer(inputs, SETTINGS, output=folder)
    return folder


def test_numbers(folder):
    tokenizer = SentencePieceTokenizer(folder / "tokenizer.model")
    texts = ["two words", "日"]
    measured = measure(tokenizer, texts)
    num_words_tokens = len(tokenizer.encode("two words"))
    assert measured.num_tokens == num_words_tokens + 3
    assert measured.num_partial_tokens == 3  # of one character without a token
    assert (measured.num_words, measured.num_texts, measured.num_round_trips) == (3, 2, 2)
    assert (measured.num_characters, measured.num_bytes) == (10, 12)
    rates = measured.rates()
    assert rates["characters_per_token"] == 10 / (num_words_tokens + 3)
    assert rates["tokens_per_word"] == (num_words_tokens + 3) / 3
    assert rates["partial_token_rate"] == 3 / (num_words_tokens + 3)
    assert rates["round_trip_rate"] == 1
    assert rates["encode_megabytes_per_second"] > 0


def test_thai_has_no_words_between_spaces(folder):
    tokenizer = SentencePieceTokenizer(folder / "tokenizer.model")
    assert measure(tokenizer, [THAI]).rates()["tokens_per_word"] is None


def test_a_tokenizer_that_loses_text_is_seen(sentencepiece_of_llama_2):
    measured = measure(sentencepiece_of_llama_2, ["a ▁ b", "a b"])
    assert measured.rates()["round_trip_rate"] == 0.5


@pytest.fixture
def sentencepiece_of_llama_2(tmp_path):
    import sentencepiece

    with open(tmp_path / "m.model", "wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(["a b c a b c"]),
            model_writer=file,
            model_type="bpe",
            vocab_size=264,
            byte_fallback=True,
            normalization_rule_name="identity",
            minloglevel=2,
        )
    return SentencePieceTokenizer(tmp_path / "m.model")


def test_cutting_texts():
    parts = cut_texts(["a\nbb\nccc\n", "dddd", "e"], text_characters=4, max_characters=12)
    assert parts == ["a\nbb\n", "ccc\n", "ddd"]
    assert "".join(cut_texts(["x\u2028y\r\nz"], text_characters=1, max_characters=99)) == (
        "x\u2028y\r\nz"
    )


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        main(["tokenizer", "report", *map(str, arguments)])
    return stop.value.code, capsys.readouterr()


def test_table_json_and_picture(folder, inputs, tmp_path, capsys):
    model = f"again={folder}/tokenizer.model"
    code, printed = run(capsys, folder, model, "--corpus", *inputs, "--output", tmp_path / "report")
    assert code == 0
    assert "chars/token" in printed.out and "small" in printed.out and "again" in printed.out
    result = json.loads((tmp_path / "report" / "report.json").read_text())
    assert [(row["language"], row["tokenizer"]) for row in result["rows"]] == [
        ("code", "small"), ("code", "again"), ("th", "small"), ("th", "again"),
    ]  # fmt: skip
    for small, again in (result["rows"][:2], result["rows"][2:]):
        assert small["characters_per_token"] == again["characters_per_token"]
        assert small["round_trip_rate"] == 1
    assert (tmp_path / "report" / "report.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["{folder}", "x={folder}", "x={folder}"], "another tokenizer is called x"),
        (["{folder}", "--max-characters", "0"], "--max-characters must be at least 1"),
        (["{folder}", "--quiet"], "--quiet without --output"),
        (["nowhere"], "nowhere: no such file"),
        ([], "tokenizer"),
    ],
)
def test_bad_input(folder, inputs, capsys, arguments, message):
    arguments = [argument.format(folder=folder) for argument in arguments]
    code, printed = run(capsys, *arguments, "--corpus", *inputs)
    assert code == 2 and message in printed.err and printed.err.count("\n") == 1
