"""A small corpus in two languages, and a tokenizer of it."""

import inspect
import textwrap

import pytest

from train.tokenizer.train_tokenizer import TokenizerSettings

SETTINGS = TokenizerSettings(
    vocab_size=700,
    num_special_tokens=16,
    own_special_tokens=(),
    temperature=2.0,
    character_coverage=1.0,
    seed=0,
    chat_template="llama31",
)
THAI = "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ"


@pytest.fixture(scope="session")
def corpus_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    (folder / "code.txt").write_text(inspect.getsource(textwrap))
    (folder / "th.txt").write_text(f"{THAI}\n" * 5)
    return folder


@pytest.fixture(scope="session")
def inputs(corpus_folder):
    return [f"code={corpus_folder}/code.txt", f"th={corpus_folder}/th.txt"]
