"""What a row may say next, as the engine sees it: a mask before each token, the token after.

The engine asks for the mask on the host, chooses on the device, and tells which id was chosen. The
same ids told to a fresh constraint lead to the same masks, so a row that was put off is replayed.
"""

from typing import Any, Protocol

import numpy as np

from infer.sampling.masks import mask_of, num_words
from llama_jax.errors import InputError

# llguidance's word for a dead end in the middle of a text.
_STUCK = "NoExtension"


class Constraint(Protocol):
    """The state of one row.

    Attributes:
      is_finished: nothing may follow but an end id, so the row may stop here.
    """

    @property
    def is_finished(self) -> bool: ...

    def mask(self) -> np.ndarray:
        """uint32 `[ceil(V / 32)]`, see `infer/sampling/masks.py`: the ids that may come next. An
        end id is among them if the text so far is whole.

        Raises:
          InputError: nothing can follow and the text is not whole, or the grammar became too large
            to follow; says which. The row cannot go on.
        """
        ...

    def accept(self, token: int) -> None:
        """Takes the id that was chosen, an end id too.

        Raises:
          InputError: the id is not allowed here, or the grammar became too large to follow.
        """
        ...


class GrammarConstraint:
    """A `Constraint` that llguidance keeps.

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
        return self._matcher.is_stopped() and self._matcher.is_accepting()

    def mask(self) -> np.ndarray:
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint32)
        mask = bits[: num_words(self._vocab_size)] & self._all_ids
        if self._matcher.is_accepting():
            return mask
        mask &= self._without_eos
        if self._matcher.is_error() and _STUCK not in self._matcher.get_error():
            self._check()
        if not mask.any():
            raise InputError("grammar: no text fits; nothing can follow what is there so far")
        return mask

    def accept(self, token: int) -> None:
        self._matcher.consume_token(token)
        self._check()

    def _check(self) -> None:
        if self._matcher.is_error():
            raise InputError(f"grammar: {one_line(self._matcher.get_error())}")


def one_line(message: str) -> str:
    """llguidance's message without its notes on itself and the source excerpt after it."""
    lines = message.replace("<non-verbose/>", "").splitlines()
    excerpt = (i for i, line in enumerate(lines) if line.lstrip()[:1].isdigit() and " | " in line)
    return " ".join(" ".join(lines[: next(excerpt, len(lines))]).split())
