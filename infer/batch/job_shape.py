"""How long the rows of a job are: what an engine's sizes can be chosen from.

The first pass knows bytes. A few hundred rows of all lengths are tokenised, the longest among them;
the tokens of the others are taken to lie between those of the rows next to them in bytes.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from infer.batch.row_table import RowTable
from infer.batch.schedule import BYTES_A_TOKEN
from infer.protocol import ParsedRequest
from llama_jax.batch_files.batch_row import BatchRow
from llama_jax.errors import InputError

SHARES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0)
"""Of the rows, those that are at most as long as the quantile says."""

_SAMPLE = 256


@dataclass(frozen=True)
class JobShape:
    """Attributes:
    num_rows: of the input, those that fail included.
    num_samples: answers of all rows together.
    prompt_tokens: quantiles at `SHARES` of rows that have a prompt; about, but the last one is
      exact if the longest prompt in bytes is the longest in tokens.
    max_new_tokens: the same, of what each sample may have.
    prompt_logprobs: whether a row may ask for them.
    """

    num_rows: int
    num_samples: int
    prompt_tokens: tuple[int, ...]
    max_new_tokens: tuple[int, ...]
    prompt_logprobs: bool

    def __str__(self) -> str:
        half, longest = SHARES.index(0.5), -1
        return (
            f"{self.num_samples:,} answers; prompts of about {self.prompt_tokens[half]:,} tokens, "
            f"the longest {self.prompt_tokens[longest]:,}; up to {self.max_new_tokens[half]:,} new "
            f"tokens, at most {self.max_new_tokens[longest]:,}"
        )


def job_shape(table: RowTable, count_tokens: Callable[[int], int | None]) -> JobShape:
    """The shape of a job.

    Args:
      count_tokens: tokens of a row's prompt, or None if the row fails; asked for some hundred rows.
    """
    rows = table.rows
    asking = np.flatnonzero(rows["prompt_bytes"])
    num_bytes = rows["prompt_bytes"][asking]
    lengths = np.ceil(num_bytes / BYTES_A_TOKEN)
    if len(asking):
        by_length = np.argsort(num_bytes, kind="stable")
        spread = np.linspace(0, len(asking) - 1, min(_SAMPLE, len(asking)))
        sample = by_length[np.unique(spread.round().astype(int))]
        counts = [count_tokens(int(asking[place])) for place in sample]
        known = [place for place, count in zip(sample, counts, strict=True) if count is not None]
        if known:
            tokens = [count for count in counts if count is not None]
            lengths = np.ceil(np.interp(num_bytes, num_bytes[known], tokens))
    return JobShape(
        num_rows=len(rows),
        num_samples=int(rows["samples"].sum(dtype=np.int64)),
        prompt_tokens=_quantiles(lengths),
        max_new_tokens=_quantiles(rows["max_new_tokens"][asking]),
        prompt_logprobs=bool(rows["scores_prompt"].any()),
    )


@contextmanager
def prompt_counter(
    table: RowTable, parse: Callable[[BatchRow], ParsedRequest]
) -> Iterator[Callable[[int], int | None]]:
    """Counts the tokens of a row's longest prompt, see `job_shape`."""

    def count(row: int) -> int | None:
        try:
            return max(len(answer.prompt) for answer in parse(table.read(file, row)).answers)
        except InputError:
            return None

    with open(table.path, "rb") as file:
        yield count


def _quantiles(values: np.ndarray) -> tuple[int, ...]:
    if not len(values):
        return (0,) * len(SHARES)
    return tuple(int(value) for value in np.quantile(values, SHARES, method="higher"))
