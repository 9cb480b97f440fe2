"""Llama 3.1's special tokens, and names of one's own that cannot be."""

import pytest

from llama_jax.errors import InputError
from llama_jax.tokenizers.llama31 import SPECIAL_TOKENS
from llama_jax.tokenizers.training.special_tokens import special_tokens


def test_all_of_them_are_llama_31s():
    assert special_tokens(256) == tuple(SPECIAL_TOKENS)


def test_own_names_stand_where_reserved_ones_were():
    names = special_tokens(15, own=["<|tool|>"])
    assert names[11:] == (
        "<|image|>", "<|tool|>", "<|reserved_special_token_2|>", "<|reserved_special_token_3|>",
    )  # fmt: skip
    assert len(set(special_tokens(256, own=["<|tool|>"]))) == 256


@pytest.mark.parametrize(
    "number, own, message",
    [
        (11, [], "must be from 12"),
        (257, [], "to 256, not 257"),
        (12, ["<|a|>"], "must be from 13"),
        (256, ["<|eot_id|>"], "Llama 3.1's already"),
        (256, ["<|reserved_special_token_9|>"], "Llama 3.1's already"),
        (256, ["<|a|>", "<|a|>"], "given twice"),
        (256, ["<unk>"], "SentencePiece has such a token"),
        (256, ["<0x0A>"], "SentencePiece has such a token"),
        (256, [""], "must not be empty"),
        (256, [" <|a|>"], "must not be empty or end in spaces"),
    ],
)
def test_conflicts(number, own, message):
    with pytest.raises(InputError, match=message):
        special_tokens(number, own=own)
