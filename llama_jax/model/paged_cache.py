"""Keys and values in pages, as the blocks of the model see them.

A row is a list of pages; which ones is decided outside. All rows of a call have the same number of
new tokens, T, and each row's end at its own length: a row with fewer has padding before them.

B rows, T new tokens, P pages of a row.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from llama_jax.kernels.operators import Operators
from llama_jax.kernels.paged_attention.pages import KVPages, write_pages


class RowPages(NamedTuple):
    """Where the rows of a call have their keys and values; the same for all layers.

    Attributes:
      page_table: int32 `[B, P]`, the page of positions `p * page_size` up to the next multiple;
        entries that a row's length does not reach may be anything.
      lengths: int32 `[B]`, tokens of each row with the T new ones; 0 for a row that is not in use.
      first_new: int32 `[B]`, the position from which on the row's new tokens are written: those of
        the T last positions that come before are padding, or are in the pages already.
    """

    page_table: jax.Array
    lengths: jax.Array
    first_new: jax.Array

    def positions(self, num_new: int) -> jax.Array:
        """int32 `[B, T]`, where each token stands in its row; negative for padding."""
        return self.lengths[:, None] - num_new + jnp.arange(num_new, dtype=jnp.int32)


class PagedLayerCache(NamedTuple):
    """The pages of one layer and the rows in them."""

    pages: KVPages
    rows: RowPages

    def attend(
        self,
        operators: Operators,
        query: jax.Array,
        key: jax.Array,
        value: jax.Array,
        mask: None,
        *,
        scale: float,
    ) -> tuple[jax.Array, "PagedLayerCache"]:
        """Attention of the new tokens over their rows, themselves included, and the pages with
        them: `[B, N, T, H]`, `[B, K, T, H]` -> `[B, N, T, H]`. The rows say what is seen."""
        positions = self.rows.positions(query.shape[2])
        is_new = positions >= self.rows.first_new[:, None]
        pages = write_pages(
            self.pages, self.rows.page_table, jnp.where(is_new, positions, -1), key, value
        )
        output = operators.paged_attention(
            query, pages, self.rows.page_table, self.rows.lengths, scale=scale
        )
        return output, self._replace(pages=pages)
