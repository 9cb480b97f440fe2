"""How well a tokenizer does on texts: what tokens it makes of them, and how fast."""

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from llama_jax.tokenizers.interface import Tokenizer
from llama_jax.tokenizers.token_bytes import TokenBytes

# Where what spaces separate is longer on average, it is no word: Thai has 20 and more.
_MAX_MEAN_WORD = 14.0


@dataclass(frozen=True)
class Measurement:
    """What one tokenizer does on one language.

    Attributes:
      num_texts, num_characters, num_bytes: of the texts; bytes in UTF-8.
      num_words: what white space separates; None if that is no word in this language.
      num_tokens: without BOS and EOS.
      num_partial_tokens: that hold only a part of a character, as bytes of one without a token.
      num_round_trips: texts that decode to themselves.
      encode_seconds: processor time of encoding all of them one after another, in one thread.
        (Not by the clock, which a busy machine would make meaningless.)
    """

    num_texts: int
    num_characters: int
    num_bytes: int
    num_words: int | None
    num_tokens: int
    num_partial_tokens: int
    num_round_trips: int
    encode_seconds: float

    def rates(self) -> dict[str, float | None]:
        """The numbers to compare by."""
        words = self.num_words
        return {
            "characters_per_token": self.num_characters / self.num_tokens,
            "tokens_per_word": None if words is None else self.num_tokens / words,
            "partial_token_rate": self.num_partial_tokens / self.num_tokens,
            "round_trip_rate": self.num_round_trips / self.num_texts,
            "encode_megabytes_per_second": self.num_bytes / 1e6 / self.encode_seconds,
        }


def measure(tokenizer: Tokenizer, texts: Iterable[str]) -> Measurement:
    """Encodes and decodes `texts`, of which at least one must have a character."""
    token_counts: Counter[int] = Counter()
    num_texts = num_characters = num_bytes = num_words = num_round_trips = 0
    seconds = 0.0
    tokenizer.encode("a text to begin with")  # what is made on first use is no part of the speed
    for text in texts:
        start = time.thread_time()
        ids = tokenizer.encode(text)
        seconds += time.thread_time() - start
        token_counts.update(ids)
        num_round_trips += tokenizer.decode(ids) == text
        num_texts += 1
        num_characters += len(text)
        num_bytes += len(text.encode())
        num_words += len(text.split())
    has_words = num_words and num_characters / num_words <= _MAX_MEAN_WORD
    return Measurement(
        num_texts=num_texts,
        num_characters=num_characters,
        num_bytes=num_bytes,
        num_words=num_words if has_words else None,
        num_tokens=token_counts.total(),
        num_partial_tokens=_count_partial(tokenizer, token_counts),
        num_round_trips=num_round_trips,
        encode_seconds=seconds,
    )


def _count_partial(tokenizer: Tokenizer, token_counts: Counter[int]) -> int:
    token_bytes = TokenBytes(tokenizer)
    return sum(
        count for token_id, count in token_counts.items() if not _is_whole(token_bytes.of(token_id))
    )


def _is_whole(token: bytes) -> bool:
    try:
        token.decode()
    except UnicodeDecodeError:
        return False
    return True


def cut_texts(texts: Iterable[str], *, text_characters: int, max_characters: int) -> Sequence[str]:
    """Parts of `texts` at line ends, of about `text_characters`, until `max_characters` are had."""
    parts: list[str] = []
    left = max_characters
    for text in texts:
        part = ""
        for line in text[:left].splitlines(keepends=True):
            part += line
            if len(part) >= text_characters:
                parts.append(part)
                part = ""
        parts += [part] if part else []
        left -= len(text[:left])
        if not left:
            break
    return parts
