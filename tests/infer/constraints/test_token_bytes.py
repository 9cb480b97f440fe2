"""Bytes of tokens: those of a text's ids, one after another, are the text."""

import json
import random
import re

import jsonschema
import pytest

from infer.constraints import GrammarCompiler
from infer.constraints.grammar_tokenizer import GrammarTokenizer
from infer.constraints.token_bytes import token_bytes
from infer.smollm2 import smollm2_gguf
from llama_jax.checkpoints.formats import open_source
from llama_jax.checkpoints.source_tokenizer import source_tokenizer
from llama_jax.errors import InputError
from tests.infer.constraints import walks
from tests.tokenizers.conftest import (  # noqa: F401
    TEXTS,
    byte_fallback_tokenizer,
    rank_file,
    rank_lines,
    sentencepiece_model,
    smollm_json,
    tokenizers,
)

KINDS = ("llama31", "byte level", "sentencepiece", "byte fallback")


@pytest.mark.parametrize("kind", KINDS)
def test_the_bytes_of_the_ids_of_a_text_are_the_text(kind, tokenizers):  # noqa: F811
    tokenizer = tokenizers[kind]
    tokens = token_bytes(tokenizer)
    assert len(tokens) == tokenizer.vocab_size
    puts_space = kind in ("sentencepiece", "byte fallback")
    grammar_tokenizer = GrammarTokenizer(tokenizer, tokenizer.eos_ids)
    for text in TEXTS.values():
        content = b"".join(tokens[token] for token in tokenizer.encode(text))
        assert content == ((b" " if puts_space and text else b"") + text.encode())
        cut = grammar_tokenizer(text)
        assert b"".join(grammar_tokenizer.tokens[token] for token in cut) == text.encode()


@pytest.mark.parametrize("kind", ("llama31", "byte level"))
def test_bytes_of_any_ids_are_what_decoding_gives(kind, tokenizers):  # noqa: F811
    tokenizer = tokenizers[kind]
    tokens = token_bytes(tokenizer)
    chooser = random.Random(0)
    for _ in range(200):
        ids = [chooser.randrange(tokenizer.vocab_size) for _ in range(5)]
        content = b"".join(tokens[token] for token in ids)
        assert content.decode("utf-8", "replace") == tokenizer.decode(ids)


@pytest.mark.parametrize("kind", KINDS)
def test_a_grammar_holds_with_every_kind_of_tokenizer(kind, tokenizers):  # noqa: F811
    tokenizer = tokenizers[kind]
    eos_ids = tokenizer.eos_ids or frozenset({0})
    new_constraint = GrammarCompiler(tokenizer, eos_ids).choice(["theta", "(é)", "the, a"])
    texts = {walks.random_answer(tokenizer, new_constraint, eos_ids, seed=i) for i in range(24)}
    assert texts == {"theta", "(é)", "the, a"}


class WordPieceTokenizer:
    vocab_size = 1
    special_tokens = {}

    def definition(self):
        model = {"type": "WordPiece", "vocab": {"the": 0}}
        return {"model": model, "pre_tokenizer": {"type": "Whitespace"}, "added_tokens": []}


def test_a_vocabulary_without_bytes_is_refused():
    with pytest.raises(InputError, match="another kind"):
        token_bytes(WordPieceTokenizer())


SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 9},
        "sizes": {
            "type": "array",
            "items": {"type": "integer", "minimum": -9, "maximum": 9},
            "maxItems": 4,
        },
    },
    "required": ["name", "sizes"],
    "additionalProperties": False,
}


@pytest.mark.slow
def test_grammars_hold_with_smollm2():
    """Slow for its download only."""
    tokenizer = source_tokenizer(open_source(smollm2_gguf()))
    tokens = token_bytes(tokenizer)
    for text in TEXTS.values():
        assert b"".join(tokens[token] for token in tokenizer.encode(text)) == text.encode()
    compiler = GrammarCompiler(tokenizer, tokenizer.eos_ids)
    pattern = r"[a-z]{1,8}(, [a-z]{1,8}){2}\."
    by_pattern, by_schema = compiler.regex(pattern), compiler.json_schema(SCHEMA)
    for seed in range(20):
        text = walks.random_answer(tokenizer, by_pattern, tokenizer.eos_ids, seed=seed)
        assert re.fullmatch(pattern, text)
        text = walks.random_answer(tokenizer, by_schema, tokenizer.eos_ids, seed=seed)
        jsonschema.validate(json.loads(text), SCHEMA)
