"""The rows of a decode call, as arrays."""

from collections.abc import Sequence

import numpy as np

from infer.engine.decode_rows import DecodeRows
from infer.engine.executables import DecodeKey, empty_decode_rows
from infer.engine.row import Row
from infer.engine.settings import EngineSettings
from infer.sampling import GREEDY, count_rows, full_mask, mask_of, stack_sampling


def decode_rows(
    rows: Sequence[Row],
    key: DecodeKey,
    settings: EngineSettings,
    vocab_size: int,
) -> DecodeRows:
    """Numpy arrays for the program of `key`.

    Args:
      rows: at most `key.num_rows`, with pages for what they will write.
    """
    filling = key.num_rows - len(rows)
    sampling = [row.request.sampling for row in rows] + [GREEDY] * filling
    arrays = empty_decode_rows(key, settings, vocab_size)
    arrays = arrays._replace(sampling=stack_sampling(sampling, key.mode)[0])
    for index, row in enumerate(rows):
        known = row.answer[row.num_decoded :][: arrays.forced.shape[1]]
        stop_ids = sorted(row.request.stop_ids)
        arrays.page_table[index, : len(row.pages)] = row.pages
        arrays.tokens[index] = row.token(row.num_cached)
        arrays.lengths[index] = row.num_cached + 1
        arrays.limits[index] = row.num_steps_left
        arrays.least[index] = row.request.min_new_tokens - row.num_decoded
        arrays.stop_ids[index, : len(stop_ids)] = stop_ids
        arrays.forced[index, : len(known)] = known
        if key.mode.mask:
            arrays.mask[index] = _mask(row, vocab_size)
        if arrays.history is not None:
            tokens = [*row.request.prompt, *row.answer[: row.num_decoded]]
            arrays.history[index, : len(tokens)] = tokens
    if key.mode.penalties:
        prompts = [row.request.prompt for row in rows] + [()] * filling
        answers = [row.answer[: row.num_decoded] for row in rows] + [()] * filling
        arrays = arrays._replace(counts=count_rows(prompts, answers, vocab_size=vocab_size))
    return arrays


def _mask(row: Row, vocab_size: int) -> np.ndarray:
    """uint32 `[W]`: what its grammar and its list of ids both allow."""
    mask = full_mask(vocab_size)
    if row.request.sampling.allowed_ids is not None:
        mask = mask_of(row.request.sampling.allowed_ids, vocab_size)
    # While known tokens are repeated nothing is chosen, and the grammar is ahead already.
    if row.constraint is not None and row.num_decoded == len(row.answer):
        mask = mask & row.constraint.mask()
    return mask
