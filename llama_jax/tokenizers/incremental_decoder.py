"""Decoding ids as they are generated, for a terminal or a stream.

One character can take several tokens (an emoji in byte-level pairs, a rare character in
SentencePiece bytes), and SentencePiece drops the space before the first token only. So a token
cannot be decoded by itself, and decoding the whole answer again for every token would take
quadratic time. This decoder keeps a window: the ids whose text is not all out yet, behind the few
that came out last.

- While the window's text ends in U+FFFD, up to three ids are held back: a character of UTF-8 that
  is not complete has at most three bytes, and a token has at least one.
- If it still ends so with more ids, the bytes are no text. All comes out but the last three U+FFFD,
  which may still be the start of a character.

Everything put out, with `finish()` at the end, is `tokenizer.decode` of all the ids. (One
exception: a `tokenizer.json` with a `ByteFallback` decoder turns a whole run of byte tokens into
U+FFFD if any of it is no text, good characters that are already out included.) A push decodes at
most a dozen ids, however many came before.
"""

from llama_jax.tokenizers.interface import Tokenizer

MAX_INCOMPLETE_BYTES = 3
_REPLACEMENT = "\ufffd"


class IncrementalDecoder:
    """Text of a growing list of ids, piece by piece.

    decoder = IncrementalDecoder(tokenizer, skip_special=True)
    for token_id in generated:
        print(decoder.push(token_id), end="", flush=True)
    print(decoder.finish())
    """

    def __init__(self, tokenizer: Tokenizer, *, skip_special: bool) -> None:
        self._tokenizer = tokenizer
        self._skipped_ids = (
            frozenset(tokenizer.special_tokens.values()) if skip_special else frozenset()
        )
        self._window: list[int] = []
        self._num_settled_ids = 0  # of the window: ids whose text is all out
        self._num_chars_out = 0  # of the window's text

    def push(self, token_id: int) -> str:
        """The text that `token_id` completes; often empty."""
        if token_id in self._skipped_ids:
            return ""
        self._window.append(token_id)
        text = self._tokenizer.decode(self._window)
        num_doubtful = len(text) - len(text.rstrip(_REPLACEMENT))
        num_held_ids = len(self._window) - self._num_settled_ids
        if num_doubtful and num_held_ids <= MAX_INCOMPLETE_BYTES:
            return ""
        num_doubtful = min(num_doubtful, MAX_INCOMPLETE_BYTES)
        new_text = text[self._num_chars_out : len(text) - num_doubtful]
        if new_text:
            self._shorten_window(num_doubtful)
        return new_text

    def finish(self) -> str:
        """The text held back; U+FFFD where a character was never completed."""
        return self._tokenizer.decode(self._window)[self._num_chars_out :]

    def _shorten_window(self, num_doubtful: int) -> None:
        """Keeps what the next ids need: the ids that came out last, which start at the start of a
        character, or, among bytes that are no text, the ids of the doubtful end and one more."""
        if num_doubtful:
            self._window = self._window[-MAX_INCOMPLETE_BYTES - 1 :]
            self._num_settled_ids = 1
        else:
            self._window = self._window[self._num_settled_ids :]
            self._num_settled_ids = len(self._window)
        self._num_chars_out = len(self._tokenizer.decode(self._window)) - num_doubtful
