"""Mixtures written as kind -> share, and where the prepared rows of each kind lie.

Llama 3's data is about 50 % general knowledge, 25 % mathematics and reasoning, 17 % code and 8 %
other languages (arXiv 2407.21783, section 3.1.2). Rows of one length lie together, as
`llama-jax data prepare` packs rows of one length:

    data/8192/general    data/8192/code    ...
"""

from collections.abc import Mapping

from train.config import Source

LLAMA_3_MIX = {"general": 0.50, "math_reasoning": 0.25, "code": 0.17, "multilingual": 0.08}


def mixture_of(shares: Mapping[str, float], *, data: str, row_length: int) -> tuple[Source, ...]:
    """One source a kind: `data`/`row_length`/kind, weighted by its share."""
    return tuple(
        Source(name=kind, path=f"{data}/{row_length}/{kind}", weight=share)
        for kind, share in shares.items()
    )
