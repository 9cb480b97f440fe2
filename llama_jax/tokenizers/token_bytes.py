"""The bytes of single tokens, which `decode` cannot give: a token may be half a character.

Byte-level vocabularies cut characters of UTF-8 anywhere, and SentencePiece's fall back to bytes for
characters they do not have. Log-probabilities are reported with these bytes, so that whoever reads
them can put characters together again.
"""

import re
from functools import cached_property

from llama_jax.tokenizers.byte_alphabet import BYTE_TO_CHARACTER
from llama_jax.tokenizers.interface import Tokenizer

_BYTE_OF = {character: byte for byte, character in BYTE_TO_CHARACTER.items()}
_BYTE_PIECE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_REPLACEMENT = "\ufffd"


class TokenBytes:
    """Bytes of a tokenizer's tokens, looked up on demand."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._found: dict[int, bytes] = {}

    def of(self, token_id: int) -> bytes:
        """Bytes of `token_id` as they stand inside a text: a SentencePiece token keeps the space
        that it would lose at the start. Those of special tokens are their names.

        Raises:
          InputError: an id outside the vocabulary.
        """
        if token_id not in self._found:
            self._found[token_id] = self._look_up(token_id)
        return self._found[token_id]

    def _look_up(self, token_id: int) -> bytes:
        before, text_before = self._something_before
        text = self._tokenizer.decode([*before, token_id])[len(text_before) :]
        if _REPLACEMENT not in text:
            return text.encode()
        spelling = self._spellings.get(token_id)
        if isinstance(spelling, bytes):
            return spelling
        if spelling is not None and (piece := _BYTE_PIECE.fullmatch(spelling)):
            return bytes.fromhex(piece[1])
        if spelling is not None and all(character in _BYTE_OF for character in spelling):
            return bytes(_BYTE_OF[character] for character in spelling)
        return text.encode()

    @cached_property
    def _something_before(self) -> tuple[list[int], str]:
        """Ids to stand before a token, and their text."""
        ids = self._tokenizer.encode("a")
        return ids, self._tokenizer.decode(ids)

    @cached_property
    def _spellings(self) -> dict[int, str | bytes]:
        """How each id is written in the tokenizer's file, read once it is needed."""
        definition = self._tokenizer.definition()
        if "ranks" in definition:
            return {rank: bytes.fromhex(token) for rank, token in enumerate(definition["ranks"])}
        if "pieces" in definition:
            return {index: piece for index, (piece, *_) in enumerate(definition["pieces"])}
        vocabulary = definition["model"]["vocab"]
        if isinstance(vocabulary, list):  # a unigram model's: pairs of token and score
            return {index: token for index, (token, _) in enumerate(vocabulary)}
        return {index: token for token, index in vocabulary.items()}
