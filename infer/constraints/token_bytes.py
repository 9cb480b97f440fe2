"""The bytes of every token of a vocabulary, which is what a grammar is matched against.

Read from `Tokenizer.definition`, which states the vocabulary of each kind of tokenizer: Meta's rank
file holds the bytes themselves; a byte-level `tokenizer.json` spells them in GPT-2's alphabet; a
SentencePiece model writes a space as ▁ and a byte as <0x0A>, and so does a `tokenizer.json` made
from one.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from llama_jax.errors import InputError
from llama_jax.tokenizers.byte_alphabet import BYTE_TO_CHARACTER
from llama_jax.tokenizers.interface import Tokenizer

_CHARACTER_TO_BYTE = {character: byte for byte, character in BYTE_TO_CHARACTER.items()}
_BYTE_PIECE = re.compile(r"<0x([0-9A-F]{2})>")
# Kinds of piece in sentencepiece_model.proto.
_NORMAL, _USER_DEFINED, _BYTE = 1, 4, 6


def token_bytes(tokenizer: Tokenizer) -> list[bytes]:
    """The bytes of each id, `vocab_size` of them.

    A special token has those of its name. Empty where an id has no text (a gap in the ids, an
    unknown or unused piece): no grammar allows such an id.

    Raises:
      InputError: the vocabulary is of a kind whose bytes are not known (WordPiece, for one).
    """
    definition = tokenizer.definition()
    if "ranks" in definition:
        tokens = enumerate(bytes.fromhex(token) for token in definition["ranks"])
    elif "pieces" in definition:
        tokens = _of_pieces(definition["pieces"])
    elif "model" in definition:
        tokens = _of_tokenizer_json(definition)
    else:
        raise _unknown_kind()
    by_id = [b""] * tokenizer.vocab_size
    for token_id, content in tokens:
        by_id[token_id] = content
    for text, token_id in tokenizer.special_tokens.items():
        by_id[token_id] = text.encode()
    return by_id


def _of_pieces(pieces: Iterable[tuple[str, float, int]]) -> Iterable[tuple[int, bytes]]:
    for token_id, (piece, _, kind) in enumerate(pieces):
        if kind == _BYTE:
            yield token_id, _of_piece(piece)
        elif kind in (_NORMAL, _USER_DEFINED):
            yield token_id, piece.replace("▁", " ").encode()


def _of_tokenizer_json(definition: Mapping[str, Any]) -> Iterable[tuple[int, bytes]]:
    vocabulary = definition["model"].get("vocab")
    if isinstance(vocabulary, list):  # a unigram model lists pieces and scores
        vocabulary = {piece: token_id for token_id, (piece, _) in enumerate(vocabulary)}
    if _mentions(definition.get("pre_tokenizer"), "ByteLevel"):
        of_token = _of_byte_level
    elif _mentions(definition.get("pre_tokenizer"), "Metaspace") or _mentions(
        definition.get("normalizer"), "▁"
    ):
        of_token = _of_piece
    else:
        raise _unknown_kind()
    for token, token_id in vocabulary.items():
        yield token_id, of_token(token)
    for added in definition["added_tokens"]:
        yield added["id"], added["content"].encode()


def _of_byte_level(token: str) -> bytes:
    if not all(character in _CHARACTER_TO_BYTE for character in token):
        return b""
    return bytes(_CHARACTER_TO_BYTE[character] for character in token)


def _of_piece(token: str) -> bytes:
    if byte := _BYTE_PIECE.fullmatch(token):
        return bytes.fromhex(byte[1])
    return token.replace("▁", " ").encode()


def _mentions(value: Any, word: str) -> bool:
    """Whether a text somewhere in a JSON value is `word`."""
    if isinstance(value, Mapping):
        return any(_mentions(item, word) for item in value.values())
    if isinstance(value, list):
        return any(_mentions(item, word) for item in value)
    return value == word


def _unknown_kind() -> InputError:
    return InputError(
        "grammars need a byte-level or SentencePiece tokenizer, and this model has another kind; "
        "ask without a schema or grammar"
    )
