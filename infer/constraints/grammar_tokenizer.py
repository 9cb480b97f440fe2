"""Our tokenizers as llguidance wants one: bytes of every id, which ids are special, and how a text
is cut, for the stretches where the grammar leaves one text only."""

from typing import Any

from infer.constraints.token_bytes import token_bytes
from llama_jax.errors import InputError
from llama_jax.tokenizers.interface import Tokenizer

# SentencePiece puts a space before a text, but not after this, which is in no word of a vocabulary.
_MARKER = "\x02"


class GrammarTokenizer:
    """What `llguidance.TokenizerWrapper` reads: attributes of these names, and a call."""

    def __init__(self, tokenizer: Tokenizer, eos_ids: frozenset[int]) -> None:
        self.tokens = token_bytes(tokenizer)
        if not eos_ids:
            # llguidance must have an end id: one past the vocabulary is never chosen.
            self.tokens.append(b"<end>")
            eos_ids = frozenset({tokenizer.vocab_size})
        self.eos_ids = sorted(eos_ids)
        self.eos_token_id = self.eos_ids[0]
        self.bos_token_id = tokenizer.bos_id
        self.special_token_ids = sorted({*tokenizer.special_tokens.values(), *eos_ids})
        self._tokenizer = tokenizer
        self._marker_ids = tokenizer.encode(_MARKER)

    def __call__(self, text: str) -> list[int]:
        """The ids whose bytes are `text` and nothing more."""
        ids = self._tokenizer.encode(text)
        if self._bytes_of(ids) == text.encode():
            return ids
        marked = self._tokenizer.encode(_MARKER + text)
        assert marked[: len(self._marker_ids)] == self._marker_ids, "the marker merged"
        return marked[len(self._marker_ids) :]

    def _bytes_of(self, ids: list[int]) -> bytes:
        return b"".join(self.tokens[token_id] for token_id in ids)


def llguidance_tokenizer(tokenizer: Tokenizer, eos_ids: frozenset[int]) -> Any:
    """An `llguidance.LLTokenizer`; takes about a second.

    Raises:
      InputError: llguidance is not installed, the vocabulary is of an unknown kind, or an end id is
        outside it.
    """
    try:
        from llguidance import LLTokenizer, TokenizerWrapper
    except ImportError as error:
        raise InputError('schemas and grammars need llguidance: pip install ".[serve]"') from error
    if outside := [token for token in eos_ids if token >= tokenizer.vocab_size]:
        raise InputError(f"end ids {outside} are outside the vocabulary: check eos_token_id")
    wrapped = GrammarTokenizer(tokenizer, eos_ids)
    return LLTokenizer(TokenizerWrapper(wrapped), eos_token=wrapped.eos_ids)
