"""A number for a tokenizer: equal if it gives the same ids, wherever its files lie.

Tokenised data carries it, and a run compares it with its own tokenizer's. It is taken over the
vocabulary, the merges, how text is cut and normalised, and the special tokens. One vocabulary in
two kinds of file (Meta's `tokenizer.model` and Hugging Face's `tokenizer.json`) has two numbers:
that both give the same ids to every text is no property of the files alone.
"""

import hashlib
import json

from llama_jax.tokenizers.interface import Tokenizer


def tokenizer_hash(tokenizer: Tokenizer) -> str:
    """SHA-256 as 64 hexadecimal digits."""
    fields = {
        "kind": type(tokenizer).__name__,
        "definition": tokenizer.definition(),
        "special_tokens": tokenizer.special_tokens,
    }
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode("ascii")).hexdigest()
