"""Words: what no token ever spans two of, so that counts of words are all that training needs.

A word is what SentencePiece takes for one: spaces, if any, and what follows up to the next space
(`allow_whitespace_only_pieces`, `split_by_whitespace`). A few characters end a word and are in
none: line ends, so that a token has at most one line; the tab and the characters that the trainer
uses as marks (U+2581, U+2585, NUL), which it would refuse a text for. Without a token of their own
they are written as bytes.

Reference: https://github.com/google/sentencepiece, SplitIntoWords in src/model_interface.cc.
"""

import re
from collections import Counter

# A regular expression of Rust's and of Python's.
WORD_PATTERN = " *[^ \\t\\n\\r\\x00\u2581\u2585]+| +"
_WORD = re.compile(WORD_PATTERN)
# A token has at most 16 characters: a longer run, such as base64, is as well cut, and a gigantic
# line costs no more than it has text.
MAX_WORD_CHARACTERS = 256


def count_words(text: str) -> Counter[str]:
    """How often each word is in `text`."""
    words = Counter(_WORD.findall(text))
    for word in [word for word in words if len(word) > MAX_WORD_CHARACTERS]:
        count = words.pop(word)
        for start in range(0, len(word), MAX_WORD_CHARACTERS):
            words[word[start : start + MAX_WORD_CHARACTERS]] += count
    return words
