"""Texts that have been seen: letter for letter, or but for case and spaces.

Punctuation, digits and signs always count: `2 - 3` and `2 + 3` are two questions. So do characters
that Unicode only calls compatible, such as a raised 2.
"""

import hashlib
import json
import unicodedata
from typing import Any, Literal

Duplicates = Literal["exact", "normalised"]


def comparable(value: Any, duplicates: Duplicates) -> bytes:
    """16 bytes that two JSON values have in common if they are the same: texts in them as
    `duplicates` says, everything else as it is. Two of a million differ in them with a probability
    of 1 - 1e-26."""
    text = json.dumps(_normalised(value) if duplicates == "normalised" else value, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def _normalised(value: Any) -> Any:
    if isinstance(value, str):
        return " ".join(unicodedata.normalize("NFC", value).casefold().split())
    if isinstance(value, list):
        return [_normalised(one) for one in value]
    if isinstance(value, dict):
        return {name: _normalised(one) for name, one in value.items()}
    return value
