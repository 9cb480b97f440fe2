"""In which order the rows of a job are answered. It changes when an answer comes, never what it is.

Longest first: what is left at the end are short rows, so that no process, and no row of a batch,
works on alone for long. Rows whose prompts begin alike stay together, so that the engine still has
the pages of their common beginning: a group counts as long as its longest row.
"""

import numpy as np

from infer.batch.row_table import RowTable

BYTES_A_TOKEN = 4
"""About what a token of English text has, in vocabularies of 32,000 to 200,000."""


def schedule(table: RowTable) -> np.ndarray:
    """All rows in the order in which they are to be begun, int64 `[rows]`; the same for everybody
    who has the same table."""
    lengths = estimated_lengths(table)
    prefixes, group = np.unique(table.rows["prefix"], return_inverse=True)
    longest = np.zeros(len(prefixes), np.int64)
    np.maximum.at(longest, group, lengths)
    # The last key counts most; rows of a group have its number in common.
    return np.lexsort((np.arange(len(table)), -lengths, group, -longest[group]))


def estimated_lengths(table: RowTable) -> np.ndarray:
    """Tokens of each row, prompt and answer of all samples together, int64 `[rows]`: about, and at
    most."""
    rows = table.rows
    answers = rows["max_new_tokens"].astype(np.int64) * rows["samples"]
    return rows["prompt_bytes"] // BYTES_A_TOKEN + answers
