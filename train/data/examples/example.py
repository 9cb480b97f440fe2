"""Tokens to train on that belong together: a dialog, a pair of answers, a group of answers.

What an example is and what a packed row is, is the same: segments one after another, and what is
known of their tokens. A row is the examples in it, joined.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Example(NamedTuple):
    """One or more segments; attention stays within each.

    Attributes:
      tokens: integers [n].
      starts: int64 [segments], where each segment begins; the first is 0. A dialog or a group is
        one segment, a pair two: prompt with chosen, prompt with rejected.
      masks: bool [masks, n]: of dialogs `loss_mask`, of pairs `loss_mask` and `nll_mask`, true
        where the token counts when it is the target; of groups none.
      answers: int64 [answers, 2], of groups only: the index of each answer's last token, and its
        rank, 0 best.
    """

    tokens: np.ndarray
    starts: np.ndarray
    masks: np.ndarray
    answers: np.ndarray

    @property
    def num_slots(self) -> int:
        """Pairs of an example of two segments, answers of a group: what a batch has static room
        for in every row."""
        return len(self.answers) or len(self.starts) // 2


NO_ANSWERS = np.zeros((0, 2), np.int64)


def joined(examples: Sequence[Example]) -> Example:
    """Examples of one kind one after another."""
    lengths = [len(example.tokens) for example in examples]
    offsets = np.cumsum([0, *lengths[:-1]])
    pairs = list(zip(examples, offsets, strict=True))
    return Example(
        np.concatenate([example.tokens for example in examples]),
        np.concatenate([example.starts + offset for example, offset in pairs]),
        np.concatenate([example.masks for example in examples], axis=1),
        np.concatenate([example.answers + [[offset, 0]] for example, offset in pairs]),
    )
