"""What every tokenizer can do, whatever file it came from."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol


class Tokenizer(Protocol):
    """Text to token ids and back.

    Attributes:
      vocab_size: number of ids, special tokens included.
      bos_id: the id that begins a text, or None.
      eos_ids: the ids at which generation stops; may be empty.
      special_tokens: every special token's text -> its id.
    """

    vocab_size: int
    bos_id: int | None
    eos_ids: frozenset[int]
    special_tokens: dict[str, int]

    def encode(self, text: str, *, allow_special: bool = False) -> list[int]:
        """Ids of `text`, without BOS or EOS. Special tokens written in `text` stay plain text
        unless `allow_special`, so that a user cannot forge a message header."""
        ...

    def decode(self, ids: Sequence[int], *, skip_special: bool = False) -> str:
        """Text of `ids`; bytes that are not UTF-8 become U+FFFD."""
        ...

    def definition(self) -> Mapping[str, Any]:
        """All that decides the ids of a text, as a JSON object: what `tokenizer_hash` hashes. It
        says nothing of where the files lie, of comments in them, nor of how ids become text."""
        ...
