"""Hugging Face's tokenizer files from the metadata of a GGUF file.

A GGUF carries its tokenizer as metadata: `tokenizer.ggml.model` is the kind ("gpt2" is byte-level
byte pairs), `.tokens` and `.merges` are the vocabulary in GPT-2's byte alphabet, `.token_type` says
which tokens are control tokens, and `.pre` names how text is cut into words, a name that only
llama.cpp's source explains. The wrong cutting gives wrong ids in silence, so a name that is not
known here is refused; so is "default", which llama.cpp's converter writes when it does not know.
The kind "llama" (SentencePiece) is refused too.

Reference: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, and llama.cpp's
src/llama-vocab.cpp for the names of `.pre`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from llama_jax.errors import InputError
from llama_jax.tokenizers.byte_level_json import (
    added_token,
    byte_level_json,
    gpt2_pre_tokenizers,
    single_digits_pre_tokenizers,
    split_pre_tokenizers,
)
from llama_jax.tokenizers.llama31 import SPLIT_PATTERN
from llama_jax.tokenizers.tokenizer_config import tokenizer_config_files

# Values of `tokenizer.ggml.token_type` (GGUF's specification): 1 is an ordinary token.
UNKNOWN, CONTROL, USER_DEFINED = 2, 3, 4

# `.pre` -> how text is cut into words, and whether a word that is a token is taken whole.
_PRE_TOKENIZERS: dict[str, tuple[list[dict[str, Any]], bool]] = {
    "smollm": (single_digits_pre_tokenizers(), False),
    "gpt-2": (gpt2_pre_tokenizers(), False),
    **dict.fromkeys(
        ("llama-bpe", "llama3", "llama-v3"), (split_pre_tokenizers(SPLIT_PATTERN), True)
    ),
}

_ROLES = {
    "bos_token": "tokenizer.ggml.bos_token_id",
    "eos_token": "tokenizer.ggml.eos_token_id",
    "unk_token": "tokenizer.ggml.unknown_token_id",
    "pad_token": "tokenizer.ggml.padding_token_id",
}


def huggingface_files_from_gguf(
    metadata: Mapping[str, Any], *, place: str = "the GGUF file"
) -> dict[str, bytes]:
    """`tokenizer.json`, `tokenizer_config.json` and `special_tokens_map.json`, name -> content.

    Args:
      metadata: the file's metadata, keys as in the file -> int, bool, str or list of them.
      place: the file's path, for error messages.

    Raises `InputError` on a kind of tokenizer that is not handled, or metadata that does not fit
    together.
    """
    pre_tokenizers, ignore_merges = _pre_tokenizers(metadata, place)
    tokens = _field(metadata, "tokenizer.ggml.tokens", list, place)
    if not all(isinstance(token, str) for token in tokens) or len(set(tokens)) != len(tokens):
        raise InputError(
            f"{place}: tokenizer.ggml.tokens repeats a token or holds one that is no text; "
            "download the file again"
        )
    token_types = _field(metadata, "tokenizer.ggml.token_type", list, place)
    if len(token_types) != len(tokens):
        raise InputError(
            f"{place}: tokenizer.ggml has {len(tokens)} tokens but {len(token_types)} token types; "
            "download the file again"
        )
    vocabulary = {token: token_id for token_id, token in enumerate(tokens)}
    roles = {
        role: _token_at(tokens, metadata[key], f"{place}: {key}")
        for role, key in _ROLES.items()
        if key in metadata
    }
    bos = None
    if metadata.get("tokenizer.ggml.add_bos_token", False):
        if "bos_token" not in roles:
            raise InputError(f"{place}: tokenizer.ggml.add_bos_token is true without bos_token_id")
        bos = (roles["bos_token"], vocabulary[roles["bos_token"]])
    tokenizer_json = byte_level_json(
        vocabulary=vocabulary,
        merges=_merges(metadata, vocabulary, place),
        pre_tokenizers=pre_tokenizers,
        ignore_merges=ignore_merges,
        added_tokens=[
            added_token(token, token_id, special=token_type != USER_DEFINED)
            for token_id, (token, token_type) in enumerate(zip(tokens, token_types, strict=True))
            if token_type in (UNKNOWN, CONTROL, USER_DEFINED)
        ],
        bos=bos,
    )
    chat_template = metadata.get("tokenizer.chat_template")
    if chat_template is not None and not isinstance(chat_template, str):
        raise InputError(f"{place}: tokenizer.chat_template must be a string; use another file")
    architecture = metadata.get("general.architecture")
    config_files = tokenizer_config_files(
        roles,
        model_max_length=metadata.get(f"{architecture}.context_length"),
        chat_template=chat_template,
    )
    return {"tokenizer.json": tokenizer_json, **config_files}


def _pre_tokenizers(metadata: Mapping[str, Any], place: str) -> tuple[list[dict[str, Any]], bool]:
    model = metadata.get("tokenizer.ggml.model")
    if model != "gpt2":
        raise InputError(
            f"{place}: tokenizer.ggml.model is {model!r}, and only 'gpt2' (byte-level byte pairs) "
            "is handled; convert from the original checkpoint"
        )
    pre = metadata.get("tokenizer.ggml.pre")
    if not isinstance(pre, str) or pre not in _PRE_TOKENIZERS:
        raise InputError(
            f"{place}: tokenizer.ggml.pre is {pre!r}, and only {', '.join(_PRE_TOKENIZERS)} are "
            "handled; convert from the original checkpoint"
        )
    return _PRE_TOKENIZERS[pre]


def _merges(
    metadata: Mapping[str, Any], vocabulary: Mapping[str, int], place: str
) -> list[tuple[str, str]]:
    merges = []
    for index, merge in enumerate(_field(metadata, "tokenizer.ggml.merges", list, place)):
        left, _, right = merge.partition(" ") if isinstance(merge, str) else ("", "", "")
        if left not in vocabulary or right not in vocabulary or left + right not in vocabulary:
            raise InputError(
                f"{place}: tokenizer.ggml.merges[{index}] is {merge!r}, which does not make one "
                "token of two; download the file again"
            )
        merges.append((left, right))
    return merges


def _field(metadata: Mapping[str, Any], key: str, kind: type, place: str) -> Any:
    value = metadata.get(key)
    if not isinstance(value, kind):
        raise InputError(f"{place}: {key} is missing or not a {kind.__name__}; use another file")
    return value


def _token_at(tokens: Sequence[str], token_id: Any, place: str) -> str:
    if type(token_id) is not int or not 0 <= token_id < len(tokens):
        raise InputError(f"{place} is {token_id!r}, not one of {len(tokens)} ids; use another file")
    return tokens[token_id]
