"""Names of responses."""

import secrets
from typing import Literal


def new_response_id(kind: Literal["chat", "completion"]) -> str:
    """A random id such as OpenAI gives. A batch job, whose output must not depend on when it was
    interrupted, makes its own from the row instead."""
    return f"{'chatcmpl' if kind == 'chat' else 'cmpl'}-{secrets.token_hex(16)}"
