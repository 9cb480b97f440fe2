"""A small tokenizer of Python's sources and of a sentence in each of eight languages."""

import inspect
import json.decoder
import textwrap

import pytest

from llama_jax.tokenizers.training.sentencepiece_to_huggingface import sentencepiece_to_huggingface
from llama_jax.tokenizers.training.sentencepiece_training import train_sentencepiece
from llama_jax.tokenizers.training.special_tokens import special_tokens
from llama_jax.tokenizers.training.words import count_words

LANGUAGES = [
    "All human beings are born free and equal in dignity and rights.",
    "Alle Menschen sind frei und gleich an Würde und Rechten geboren.",
    "Tous les êtres humains naissent libres et égaux en dignité et en droits.",
    "Tutti gli esseri umani nascono liberi ed eguali in dignità e diritti.",
    "Todos os seres humanos nascem livres e iguais em dignidade e em direitos.",
    "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है।",
    "Todos los seres humanos nacen libres e iguales en dignidad y derechos.",
    "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ",
]


@pytest.fixture(scope="session")
def corpus_text() -> str:
    return inspect.getsource(textwrap) + inspect.getsource(json.decoder) + "\n".join(LANGUAGES * 9)


@pytest.fixture(scope="session")
def model_file(corpus_text) -> bytes:
    return train_sentencepiece(
        count_words(corpus_text),
        vocab_size=1200,
        special_tokens=special_tokens(16),
        character_coverage=1.0,
    )


@pytest.fixture(scope="session")
def folder(model_file, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    files = sentencepiece_to_huggingface(model_file, chat_template="{{ bos_token }}")
    for name, content in {"tokenizer.model": model_file, **files}.items():
        (folder / name).write_bytes(content)
    return folder
