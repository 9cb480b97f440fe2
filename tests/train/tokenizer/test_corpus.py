"""How a corpus by language is written."""

import pytest

from llama_jax.errors import InputError
from train.tokenizer.corpus import corpus_by_language


@pytest.fixture
def here(tmp_path, monkeypatch):
    for name in ("a.txt", "b.txt", "c.txt", "x=y.txt"):
        (tmp_path / name).write_text("text")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    "inputs, languages",
    [
        (["a.txt", "b.txt"], {"text": ["a.txt", "b.txt"]}),
        (["de=a.txt", "b.txt", "de=c.txt"], {"de": ["a.txt", "c.txt"], "text": ["b.txt"]}),
        (["pt-BR=[ab].txt"], {"pt-BR": ["a.txt", "b.txt"]}),
        (["x=y.txt"], {"text": ["x=y.txt"]}),
    ],
)
def test_languages(here, inputs, languages):
    corpus = corpus_by_language(inputs)
    assert {name: [file.path for file in files] for name, files in corpus.items()} == languages


@pytest.mark.parametrize(
    "inputs, message",
    [
        ([], "at least one input"),
        (["de=nowhere.txt"], "nowhere.txt: there is no such file"),
        (["de=a.txt", "en=a.txt"], "a.txt: is given twice"),
    ],
)
def test_bad_input(here, inputs, message):
    with pytest.raises(InputError, match=message):
        corpus_by_language(inputs)
