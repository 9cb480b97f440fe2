"""A number for a chat format: equal if it writes the same of every dialog, wherever it comes from.

Data that was made of dialogs carries it beside the tokenizer's (`tokenizer_hash`).
"""

import hashlib
import json

from llama_jax.chat.interface import ChatFormat


def chat_format_hash(chat_format: ChatFormat) -> str:
    """SHA-256 as 64 hexadecimal digits."""
    definition = json.dumps(chat_format.definition(), sort_keys=True)
    return hashlib.sha256(definition.encode("ascii")).hexdigest()
