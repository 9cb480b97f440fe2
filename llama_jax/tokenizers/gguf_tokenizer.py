"""Hugging Face's tokenizer files from the metadata of a GGUF file.

A GGUF carries its tokenizer as metadata. `tokenizer.ggml.model` is the kind: "gpt2" is byte-level
byte pairs and becomes a `tokenizer.json`; "llama" is SentencePiece and becomes a `tokenizer.model`.
`.tokens` is the vocabulary, `.token_type` says which tokens are control tokens.

For "gpt2", `.pre` names how text is cut into words, a name that only llama.cpp's source explains.
The wrong cutting gives wrong ids in silence, so a name that is not known here is refused; so is
"default", which llama.cpp's converter writes when it does not know.

Reference: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, and llama.cpp's
src/llama-vocab.cpp for the names of `.pre` and for what holds where a key is absent.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from llama_jax.errors import InputError
from llama_jax.tokenizers.byte_level_json import (
    added_token,
    byte_level_json,
    gpt2_pre_tokenizers,
    single_digits_pre_tokenizers,
    split_pre_tokenizers,
)
from llama_jax.tokenizers.gguf_sentencepiece import sentencepiece_model
from llama_jax.tokenizers.llama31 import SPLIT_PATTERN
from llama_jax.tokenizers.tokenizer_config import tokenizer_config_files

# Values of `tokenizer.ggml.token_type` (GGUF's specification): 1 is an ordinary token.
UNKNOWN, CONTROL, USER_DEFINED = 2, 3, 4


class WordRules(NamedTuple):
    """What a value of `.pre` stands for."""

    pre_tokenizers: list[dict[str, Any]]  # how text is cut into words
    ignore_merges: bool  # a word that is a token is taken whole
    add_bos: bool  # where `add_bos_token` is absent


_LLAMA3 = WordRules(split_pre_tokenizers(SPLIT_PATTERN), ignore_merges=True, add_bos=True)
_WORD_RULES = {
    "smollm": WordRules(single_digits_pre_tokenizers(), ignore_merges=False, add_bos=False),
    "gpt-2": WordRules(gpt2_pre_tokenizers(), ignore_merges=False, add_bos=False),
    "llama-bpe": _LLAMA3,
    "llama3": _LLAMA3,
    "llama-v3": _LLAMA3,
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
    """`tokenizer.json` or `tokenizer.model`, `tokenizer_config.json` and `special_tokens_map.json`,
    name -> content.

    Args:
      metadata: the file's metadata, keys as in the file -> int, bool, str or list of them.
      place: the file's path, for error messages.

    Raises `InputError` on a kind of tokenizer that is not handled, or metadata that does not fit
    together.
    """
    model = metadata.get("tokenizer.ggml.model")
    if model not in ("gpt2", "llama"):
        raise InputError(
            f"{place}: tokenizer.ggml.model is {model!r}, and only 'gpt2' (byte-level byte pairs) "
            "and 'llama' (SentencePiece) are handled; convert from the original checkpoint"
        )
    if metadata.get("tokenizer.ggml.add_eos_token", False):
        raise InputError(
            f"{place}: tokenizer.ggml.add_eos_token is true, as for an embedding model, and not "
            "handled; use another file"
        )
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
    chat_template = metadata.get("tokenizer.chat_template")
    if chat_template is not None and not isinstance(chat_template, str):
        raise InputError(f"{place}: tokenizer.chat_template must be a string; use another file")
    roles = {
        role: _token_at(tokens, metadata[key], f"{place}: {key}")
        for role, key in _ROLES.items()
        if key in metadata
    }
    rules = _word_rules(metadata, place) if model == "gpt2" else None
    # llama.cpp puts BOS before a SentencePiece text unless told otherwise.
    add_bos = metadata.get("tokenizer.ggml.add_bos_token", rules is None or rules.add_bos)
    if add_bos and "bos_token" not in roles:
        raise InputError(
            f"{place}: tokenizer.ggml.bos_token_id is missing, but BOS is to be put before every "
            "text; use another file"
        )
    architecture = metadata.get("general.architecture")
    config_files = tokenizer_config_files(
        roles,
        tokenizer_class="LlamaTokenizer" if rules is None else "PreTrainedTokenizerFast",
        add_bos=add_bos,
        model_max_length=metadata.get(f"{architecture}.context_length"),
        chat_template=chat_template,
    )
    if rules is None:
        content = _sentencepiece_model(metadata, tokens, token_types, roles, place)
        return {"tokenizer.model": content, **config_files}
    bos_token = roles["bos_token"] if add_bos else None
    content = _byte_level_json(metadata, tokens, token_types, rules, bos_token, place)
    return {"tokenizer.json": content, **config_files}


def _word_rules(metadata: Mapping[str, Any], place: str) -> WordRules:
    pre = metadata.get("tokenizer.ggml.pre")
    if not isinstance(pre, str) or pre not in _WORD_RULES:
        raise InputError(
            f"{place}: tokenizer.ggml.pre is {pre!r}, and only {', '.join(_WORD_RULES)} are "
            "handled; convert from the original checkpoint"
        )
    return _WORD_RULES[pre]


def _byte_level_json(
    metadata: Mapping[str, Any],
    tokens: Sequence[str],
    token_types: Sequence[int],
    rules: WordRules,
    bos_token: str | None,
    place: str,
) -> bytes:
    vocabulary = {token: token_id for token_id, token in enumerate(tokens)}
    return byte_level_json(
        vocabulary=vocabulary,
        merges=_merges(metadata, vocabulary, place),
        pre_tokenizers=rules.pre_tokenizers,
        ignore_merges=rules.ignore_merges,
        added_tokens=[
            added_token(token, token_id, special=token_type != USER_DEFINED)
            for token_id, (token, token_type) in enumerate(zip(tokens, token_types, strict=True))
            if token_type in (UNKNOWN, CONTROL, USER_DEFINED)
        ],
        bos=None if bos_token is None else (bos_token, vocabulary[bos_token]),
    )


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


def _sentencepiece_model(
    metadata: Mapping[str, Any],
    tokens: Sequence[str],
    token_types: Sequence[int],
    roles: Mapping[str, str],
    place: str,
) -> bytes:
    scores = _field(metadata, "tokenizer.ggml.scores", list, place)
    if len(scores) != len(tokens):
        raise InputError(
            f"{place}: tokenizer.ggml has {len(tokens)} tokens but {len(scores)} scores; download "
            "the file again"
        )
    return sentencepiece_model(
        pieces=tokens,
        scores=scores,
        types=token_types,
        bos=roles.get("bos_token"),
        eos=roles.get("eos_token"),
        space_before_text=metadata.get("tokenizer.ggml.add_space_prefix", True),
        place=place,
    )


def _field(metadata: Mapping[str, Any], key: str, kind: type, place: str) -> Any:
    value = metadata.get(key)
    if not isinstance(value, kind):
        raise InputError(f"{place}: {key} is missing or not a {kind.__name__}; use another file")
    return value


def _token_at(tokens: Sequence[str], token_id: Any, place: str) -> str:
    if type(token_id) is not int or not 0 <= token_id < len(tokens):
        raise InputError(f"{place} is {token_id!r}, not one of {len(tokens)} ids; use another file")
    return tokens[token_id]
