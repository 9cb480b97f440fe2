"""Llama 3.1's special tokens for a new vocabulary: the same names in the same order."""

import re
from collections.abc import Sequence

from llama_jax.errors import InputError
from llama_jax.tokenizers.llama31 import NAMED_SPECIAL_TOKENS, NUM_SPECIAL_TOKENS, SPECIAL_TOKENS

UNKNOWN = "<unk>"
_BYTE_PIECE = re.compile(r"<0x[0-9A-F]{2}>")


def special_tokens(number: int, *, own: Sequence[str] = ()) -> tuple[str, ...]:
    """`number` names: Llama 3.1's that have a meaning, then `own`, then reserved ones.

    Raises `InputError` if there is no room, or if a name is taken.
    """
    least = len(NAMED_SPECIAL_TOKENS) + len(own)
    if not least <= number <= NUM_SPECIAL_TOKENS:
        raise InputError(
            f"--num-special-tokens must be from {least} ({len(NAMED_SPECIAL_TOKENS)} of Llama 3.1's"
            f" and {len(own)} of --special-tokens) to {NUM_SPECIAL_TOKENS}, not {number}"
        )
    for place, name in enumerate(own):
        _check_name(name, own[:place])
    reserved = list(SPECIAL_TOKENS)[len(NAMED_SPECIAL_TOKENS) :]
    return (*NAMED_SPECIAL_TOKENS, *own, *reserved)[:number]


def _check_name(name: str, earlier: Sequence[str]) -> None:
    if not name or name != name.strip():
        raise InputError(f"--special-tokens {name!r}: a name must not be empty or end in spaces")
    if name in SPECIAL_TOKENS:
        raise InputError(f"--special-tokens {name}: is one of Llama 3.1's already; leave it out")
    if name in earlier:
        raise InputError(f"--special-tokens {name}: is given twice; leave one out")
    if name == UNKNOWN or _BYTE_PIECE.fullmatch(name):
        raise InputError(f"--special-tokens {name}: SentencePiece has such a token; rename it")
