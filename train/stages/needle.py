"""Needle in a haystack: is a number, told once in a row of other text, found again at its end?

    [BOS] text ... " The secret number of Oslo is 4821937." ... text
    "\n The secret number of Oslo is" " 4821937"

Needle i of n lies at depth i / (n - 1) of the text, so all of the row is searched. City and number
are drawn from the seed. Haystack is the text of rows that the stage trains on, without the tokens
that begin and end documents: all of it is one document here.

The answer is scored by teacher forcing: the needle is found if at every token of the answer the
likeliest next token is the right one, given the right ones before. That is when greedy decoding
would write exactly the answer, for the price of one forward pass and no cache.

References: https://github.com/gkamradt/LLMTest_NeedleInAHaystack; arXiv 2407.21783, section 5.2.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from llama_jax.errors import InputError
from llama_jax.tokenizers.interface import Tokenizer
from train.data.row import Row

_CITIES = (
    "Oslo", "Lima", "Cairo", "Hanoi", "Paris", "Delhi", "Quito", "Tokyo", "Accra", "Sofia",
    "Rome", "Seoul", "Dakar", "Minsk", "Riga", "Doha", "Havana", "Lisbon", "Nairobi", "Vienna",
)  # fmt: skip

# Rows of the haystack that one needle's row may be made of.
_MAX_ROWS = 100


class Haystack(Protocol):
    """An endless sequence of rows, such as a stage's `Mixture`."""

    def __getitem__(self, index: int) -> Row: ...


@dataclass(frozen=True)
class NeedleRow:
    """A row to be read by the model, and where it answers.

    Attributes:
      tokens: int32 [T + 1], input and target of each position as in a training row.
      answer_mask: bool [T], where the target is a token of the answer.
      depth: of the needle in the text, from 0 to 1.
    """

    tokens: np.ndarray
    answer_mask: np.ndarray
    depth: float


class NeedleRows:
    """`num_needles` rows with one needle each; row i depends on the arguments and i only.

    Args:
      tokenizer: the run's.
      haystack: where text is taken from; row i begins with the text of its row i.
      row_length: T.
      num_needles: how many rows.
      seed: of cities and numbers.

    Attributes:
      max_answer_tokens: of any row.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        haystack: Haystack,
        *,
        row_length: int,
        num_needles: int,
        seed: int,
    ) -> None:
        self.row_length = row_length
        self._haystack = haystack
        self._begin = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
        # The documents of the haystack become one: what begins and ends them is no text.
        self._not_text = [*tokenizer.special_tokens.values(), *tokenizer.eos_ids, *self._begin]
        self._end_of_sentence, self._new_line = tokenizer.encode("."), tokenizer.encode("\n")
        self._questions, self._answers = [], []
        for index in range(num_needles):
            random = np.random.default_rng([seed, index])
            city, number = random.choice(_CITIES), random.integers(10**6, 10**7)
            # Encoded apart, so that the answer has the same tokens wherever it stands.
            self._questions.append(tokenizer.encode(f" The secret number of {city} is"))
            self._answers.append(tokenizer.encode(f" {number}"))
        self.max_answer_tokens = max(map(len, self._answers))

    def __len__(self) -> int:
        return len(self._answers)

    def __getitem__(self, index: int) -> NeedleRow:
        """Row `index`. Raises `InputError` if it is too short for needle and question, or if the
        haystack has too little text."""
        question, answer = self._questions[index], self._answers[index]
        needle = [*question, *answer, *self._end_of_sentence]
        ending = [*self._new_line, *question, *answer]
        num_text = self.row_length + 1 - len(self._begin) - len(needle) - len(ending)
        if num_text < 0:
            raise InputError(
                f"needles: row_length {self.row_length} has no room for needle and question, which "
                f"take {self.row_length - num_text}; hide them in longer rows"
            )
        depth = index / (len(self) - 1) if len(self) > 1 else 0.5
        text = self._take_text(index, num_text)
        cut = round(depth * num_text)
        parts = [self._begin, text[:cut], needle, text[cut:], ending]
        tokens = np.concatenate([np.asarray(part, np.int32) for part in parts])
        answer_mask = np.zeros(self.row_length, bool)
        answer_mask[self.row_length - len(answer) :] = True  # the last targets
        return NeedleRow(tokens, answer_mask, depth)

    def _take_text(self, first_row: int, num_tokens: int) -> np.ndarray:
        """So many tokens of text from the haystack's rows from `first_row` on."""
        taken, missing = [np.zeros(0, np.int32)], num_tokens
        for index in range(first_row, first_row + _MAX_ROWS):
            if missing <= 0:
                break
            row = self._haystack[index]
            is_text = (row.segment_ids[:-1] > 0) & ~np.isin(row.tokens[:-1], self._not_text)
            taken.append(row.tokens[:-1][is_text])
            missing -= len(taken[-1])
        if missing > 0:
            raise InputError(
                f"needles: {_MAX_ROWS} rows of the stage's data have less than {num_tokens} tokens "
                "of text; prepare longer documents"
            )
        return np.concatenate(taken)[:num_tokens]
