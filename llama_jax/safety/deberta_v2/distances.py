"""How far two tokens are apart, as the row of a table of vectors.

Distances under half the number of buckets have a row each; those above share rows by their
logarithm, so that `max_distance` has the last. It is computed once for each length, on the host and
in float32, as the model was trained: in other precision some distances would round to another row.
"""

import numpy as np

from llama_jax.safety.deberta_v2.config import DebertaConfig


def distance_rows(length: int, config: DebertaConfig) -> np.ndarray:
    """int32 `[T, S]`: row, in a table of 2 `span`, of the distance from query t to key s."""
    places = np.arange(length)
    distance = places[:, None] - places[None, :]
    if config.num_buckets:
        distance = _bucket(distance, config.num_buckets // 2, config.max_distance)
    return np.clip(distance + config.span, 0, 2 * config.span - 1).astype(np.int32)


def _bucket(distance: np.ndarray, middle: int, max_distance: int) -> np.ndarray:
    far = np.maximum(np.abs(distance), middle).astype(np.float32)
    scale = np.log(np.float32((max_distance - 1) / middle))
    logarithmic = np.ceil(np.log(far / np.float32(middle)) / scale * np.float32(middle - 1))
    return np.where(
        np.abs(distance) <= middle, distance, (logarithmic + middle) * np.sign(distance)
    ).astype(np.int64)
