"""The rows of a call as numpy arrays: of chunks of prompts, and of decoding."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from infer.engine.decode_rows import NO_TOKEN, DecodeRows
from infer.engine.executable_keys import DecodeKey, PrefillKey
from infer.engine.row import Row
from infer.engine.settings import EngineSettings
from infer.sampling import GREEDY, count_rows, full_mask, mask_of, stack_sampling
from llama_jax.model import RowPages

NO_PAGE = -1


class PrefillRows(NamedTuple):
    """A chunk of some prompts.

    Attributes:
      tokens: int32 `[R, T]`, each row's at the right.
      rows: where they go; `lengths` are the ends of the chunks.
      targets: int32 `[R, T]`, the token after each of `tokens`, -1 at padding.
    """

    tokens: np.ndarray
    rows: RowPages
    targets: np.ndarray


def empty_prefill_rows(key: PrefillKey, settings: EngineSettings) -> PrefillRows:
    """Rows that are not in use."""
    num_rows = settings.prefill_tokens // key.length
    tokens = np.zeros((num_rows, key.length), np.int32)
    return PrefillRows(
        tokens,
        RowPages(
            np.full((num_rows, settings.pages_per_row), NO_PAGE, np.int32),
            lengths=np.zeros(num_rows, np.int32),
            first_new=np.zeros(num_rows, np.int32),
        ),
        targets=np.full_like(tokens, NO_TOKEN),
    )


def prefill_rows(rows: Sequence[Row], key: PrefillKey, settings: EngineSettings) -> PrefillRows:
    """The next chunk of each row's prompt for the program of `key`, at most `key.length` tokens."""
    chunk = empty_prefill_rows(key, settings)
    for index, row in enumerate(rows):
        prompt = row.request.prompt
        end = row.num_cached + min(key.length, row.num_to_prefill)
        first = max(0, end - key.length)
        chunk.rows.page_table[index, : len(row.pages)] = row.pages
        chunk.rows.lengths[index] = end
        chunk.rows.first_new[index] = row.num_cached
        chunk.tokens[index, first - end :] = prompt[first:end]
        chunk.targets[index, first - end :] = prompt[first + 1 : end + 1]
    return chunk


def empty_decode_rows(key: DecodeKey, settings: EngineSettings, vocab_size: int) -> DecodeRows:
    """Rows that are not in use."""
    num_rows, mode = key.num_rows, key.mode
    zeros = np.zeros(num_rows, np.int32)
    num_drafts = settings.num_drafts if key.speculates else 0
    looks_back = num_drafts and settings.speculation.draft_config is None
    num_tokens = settings.decode_steps * (1 + num_drafts)
    none = [()] * num_rows
    return DecodeRows(
        page_table=np.full((num_rows, settings.pages_per_row), NO_PAGE, np.int32),
        tokens=zeros.copy(),
        lengths=zeros.copy(),
        limits=zeros.copy(),
        least=zeros.copy(),
        stop_ids=np.full((num_rows, settings.max_stop_ids), NO_TOKEN, np.int32),
        forced=np.full((num_rows, num_tokens), NO_TOKEN, np.int32),
        sampling=stack_sampling([GREEDY] * num_rows, mode)[0],
        counts=count_rows(none, none, vocab_size=vocab_size) if mode.penalties else None,
        mask=np.tile(full_mask(vocab_size), (num_rows, 1)) if mode.mask else None,
        history=np.zeros((num_rows, settings.max_length), np.int32) if looks_back else None,
    )


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
