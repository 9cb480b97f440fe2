"""Rows of examples as arrays for batches (train/data/loader.py), one class for each kind.

A row has T + 1 tokens: T inputs and T targets, one place apart. A token counts as a target where
its mask says so and its input is of the same segment. Every row of a data set has arrays of the
same shapes, so a row has room for as many pairs or answers as the fullest one has (`slots`).
"""

from typing import NamedTuple

import numpy as np

from train.data.examples.example import Example
from train.data.manifest import RowKind
from train.data.row import Row


class DialogRow(NamedTuple):
    """Dialogs, each a segment.

    Attributes:
      tokens, segment_ids: as of `Row`.
      loss_mask: bool [T + 1], of each token as a target.
    """

    tokens: np.ndarray
    segment_ids: np.ndarray
    loss_mask: np.ndarray

    def arrays(self) -> dict[str, np.ndarray]:
        """`tokens`, `targets`, `segment_ids` int32 and `loss_mask` bool, each [T]."""
        arrays = Row(self.tokens, self.segment_ids).arrays()
        return arrays | {"loss_mask": arrays["loss_mask"] & self.loss_mask[1:]}


class PairRow(NamedTuple):
    """Pairs: pair k = 0, 1, ... is the segments 2k + 1, prompt and chosen, and 2k + 2, prompt and
    rejected.

    Attributes:
      tokens, segment_ids: as of `Row`.
      loss_mask, nll_mask: bool [T + 1], of each token as a target.
    """

    tokens: np.ndarray
    segment_ids: np.ndarray
    loss_mask: np.ndarray
    nll_mask: np.ndarray

    def arrays(self) -> dict[str, np.ndarray]:
        """`tokens`, `targets`, `segment_ids` int32, `loss_mask` and `nll_mask` bool, each [T]."""
        arrays = Row(self.tokens, self.segment_ids).arrays()
        within = arrays["loss_mask"]
        masks = {"loss_mask": within & self.loss_mask[1:], "nll_mask": within & self.nll_mask[1:]}
        return arrays | masks


class GroupRow(NamedTuple):
    """Groups: each is one segment, a prompt and its answers one after another.

    Attributes:
      tokens, segment_ids: as of `Row`.
      answer_ends: int32 [E], index of each answer's last token among the T inputs; -1: no answer.
      answer_groups: int32 [E], from 0 in each row; -1: no answer.
      answer_ranks: int32 [E], 0 best; 0 where there is no answer.
    """

    tokens: np.ndarray
    segment_ids: np.ndarray
    answer_ends: np.ndarray
    answer_groups: np.ndarray
    answer_ranks: np.ndarray

    def arrays(self) -> dict[str, np.ndarray]:
        """`tokens`, `targets`, `segment_ids` [T], and the three of answers [E], all int32."""
        arrays = Row(self.tokens, self.segment_ids).arrays()
        del arrays["loss_mask"]  # no token is a target
        return arrays | {
            "answer_ends": self.answer_ends,
            "answer_groups": self.answer_groups,
            "answer_ranks": self.answer_ranks,
        }


ExampleRow = DialogRow | PairRow | GroupRow
_MASKS = {"dialogs": 1, "pairs": 2, "groups": 0}


def room(kind: RowKind, *, row_length: int) -> int:
    """How many tokens of examples a row has room for. The last token of a row is a target only, and
    the reward of an answer is read where its last token is an input."""
    return row_length if kind == "groups" else row_length + 1


def example_row(row: Example, kind: RowKind, *, row_length: int, slots: int) -> ExampleRow:
    """The row of the examples that were joined to `row`.

    Args:
      kind: of the examples.
      slots: P or E, how many pairs or answers a row has room for.

    Raises `ValueError`, saying what is wrong, if they are of another kind or do not fit.
    """
    n, num_masks = len(row.tokens), len(row.masks)
    if n > (most := room(kind, row_length=row_length)):
        raise ValueError(f"{n} tokens where at most {most} may be")
    if num_masks != _MASKS[kind] or (kind != "groups" and len(row.answers)):
        raise ValueError(f"{num_masks} masks and {len(row.answers)} answers are no {kind}")
    if kind == "pairs" and len(row.starts) % 2:
        raise ValueError(f"{len(row.starts)} segments are no pairs")
    if kind != "dialogs" and row.num_slots > slots:
        raise ValueError(f"{row.num_slots} {kind} or answers where at most {slots} may be")
    tokens, segment_ids = np.zeros((2, row_length + 1), np.int32)
    tokens[:n] = row.tokens
    segment_ids[row.starts] = 1
    np.cumsum(segment_ids[:n], out=segment_ids[:n])
    if kind == "groups":
        answers = np.full((3, slots), [[-1], [-1], [0]], np.int32)
        ends, ranks = row.answers.T
        answers[:, : len(ends)] = ends, segment_ids[ends] - 1, ranks
        return GroupRow(tokens, segment_ids, *answers)
    masks = np.zeros((num_masks, row_length + 1), bool)
    masks[:, :n] = row.masks
    if kind == "pairs":
        return PairRow(tokens, segment_ids, *masks)
    return DialogRow(tokens, segment_ids, *masks)
