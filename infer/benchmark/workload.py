"""The offline job: prompts of mixed lengths cut from real text, so many new tokens for each.

The text is Python's own documentation (`pydoc_data.topics`, some 600 kB of English that every
Python carries). Each prompt begins at a place of its own, so that none is the prefix of another.
Lengths are spread evenly on a logarithmic scale, as those of real requests roughly are, and
shuffled: a static batch pays for the differences, which is the point of the comparison.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from llama_jax.errors import InputError


@dataclass(frozen=True)
class Workload:
    """One job. Decoding is greedy and goes on past any end of text.

    Attributes:
      prompts: token ids, each of its own length.
      new_tokens: for each prompt.
      text_sha256: of the text that the prompts are cut from; it changes with Python's version.
    """

    prompts: tuple[tuple[int, ...], ...]
    new_tokens: int
    text_sha256: str

    @property
    def num_new_tokens(self) -> int:
        return len(self.prompts) * self.new_tokens

    @property
    def num_prompt_tokens(self) -> int:
        return sum(map(len, self.prompts))

    def describe(self) -> dict[str, Any]:
        """What a report says of it."""
        lengths = sorted(map(len, self.prompts))
        return {
            "prompts": len(lengths),
            "new_tokens_each": self.new_tokens,
            "prompt_tokens": self.num_prompt_tokens,
            "prompt_lengths": lengths,
            "text": "pydoc_data.topics",
            "text_sha256": self.text_sha256,
        }


def mixed_workload(
    encode: Callable[[str], Sequence[int]],
    *,
    prompts: int,
    shortest: int,
    longest: int,
    new_tokens: int,
    seed: int = 0,
) -> Workload:
    """`prompts` of them, of `shortest` to `longest` tokens.

    Args:
      encode: text to ids, without BOS.

    Raises:
      InputError: the text is too short.
    """
    text = documentation_text()
    ids = encode(text)
    rng = np.random.default_rng(seed)
    lengths = np.geomspace(shortest, longest, prompts).round().astype(int)
    rng.shuffle(lengths)
    if len(ids) - longest < prompts:
        raise InputError(
            f"the text has {len(ids)} tokens, too few for {prompts} prompts of up to {longest}"
        )
    starts = rng.choice(len(ids) - longest, prompts, replace=False)
    rows = tuple(
        tuple(ids[start : start + length])
        for start, length in zip(starts.tolist(), lengths.tolist(), strict=True)
    )
    return Workload(rows, new_tokens, hashlib.sha256(text.encode()).hexdigest())


def documentation_text() -> str:
    """The topics of Python's documentation, one after the other."""
    from pydoc_data.topics import topics

    return "\n".join(topics[name] for name in sorted(topics))
