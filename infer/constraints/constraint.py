"""What a row may say next: a mask before each token, the token after (`Constraint` of the engine).

The engine asks for the mask on the host, chooses on the device, and tells which id was chosen. The
same ids told to a fresh constraint lead to the same masks, so a row that was put off is replayed.
"""

from typing import Any

import numpy as np

from infer.sampling.masks import mask_of, num_words

# llguidance's word for a dead end in the middle of a text.
_STUCK = "NoExtension"


class GrammarConstraint:
    """A `Constraint` that llguidance keeps.

    It raises nothing, since other rows go on: where no text fits any more, or the grammar has grown
    beyond llguidance's limits, the mask allows nothing, which ends the row with an error.

    llguidance offers the end ids also where it is stuck in the middle of a text (a regular
    expression that nothing matches, `[^\\s\\S]`): they are taken out here unless it accepts.
    """

    def __init__(self, matcher: Any, *, eos_ids: frozenset[int], vocab_size: int) -> None:
        """
        Args:
          matcher: an `llguidance.LLMatcher` in its first state, which nobody else uses.
        """
        self._matcher = matcher
        self._vocab_size = vocab_size
        self._without_eos = ~mask_of(eos_ids, vocab_size)
        self._all_ids = mask_of(range(vocab_size), vocab_size)

    @property
    def is_finished(self) -> bool:
        """Whether the text is whole and nothing may follow but an end id."""
        return self._matcher.is_stopped() and self._matcher.is_accepting()

    @property
    def error(self) -> str | None:
        """Why the last mask allowed nothing, in one line; None while the row can go on."""
        if not self._matcher.is_error():
            return None
        message = self._matcher.get_error()
        return "no text fits any more" if _STUCK in message else one_line(message)

    def mask(self) -> np.ndarray:
        """uint32 `[ceil(V / 32)]`, see `infer/sampling/masks.py`: the ids that may come next, an
        end id among them if the text so far is whole. Allows nothing if there is an `error`."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint32)
        if self._matcher.is_error():
            return np.zeros(num_words(self._vocab_size), np.uint32)
        mask = bits[: num_words(self._vocab_size)] & self._all_ids
        return mask if self._matcher.is_accepting() else mask & self._without_eos

    def accept(self, token: int) -> None:
        """Takes the id that was chosen, an end id too. One that the mask did not allow is an
        `error`."""
        self._matcher.consume_token(token)


def one_line(message: str) -> str:
    """llguidance's message without its notes on itself and the source excerpt after it."""
    lines = message.replace("<non-verbose/>", "").splitlines()
    excerpt = (i for i, line in enumerate(lines) if line.lstrip()[:1].isdigit() and " | " in line)
    return " ".join(" ".join(lines[: next(excerpt, len(lines))]).split())
