"""Keys and values in pages: fixed pieces of memory that rows of any length share.

One layout serves both platforms: `[pages, page_size, 2 K, H]`, the key of head k at 2k and its
value at 2k + 1. It is what JAX's TPU kernel takes: the heads of a token side by side, so that one
copy brings a page whole and a TPU's tiles of 8 x 128 fill up even if K is 4. A GPU would like the
tokens of one head side by side (`[pages, 2 K, page_size, H]`). It loses little: the TMA fetches a
strided box, whose rows are `2 H` numbers of key and value together (512 bytes in bfloat16 at H =
128, sixteen sectors of DRAM) and blocks that run at the same time read the neighbouring heads.
Two layouts would mean two writers, two engines' worth of tests, and caches that cannot move.

Integers and FP8 have one float32 scale per token and head, apart for keys and values, in an array
of its own: `[pages, 2 K, page_size]`, so that the scales of a page's tokens are one run of bytes.
They cost 4 / H of the values, 3 % at H = 128, and are applied where they cost nothing: to a column
of scores, and to the probabilities before they meet the values (`reference.py`).

Letters: B rows, T tokens of a row, P pages of a row, K key and value heads, H head dim.
"""

import dataclasses

import jax
import jax.numpy as jnp

from llama_jax.kernels.attention.quantized_vectors import QUANTIZED_DTYPES, check_cache_dtype
from llama_jax.quantization.number_formats import quantize_rows


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class KVPages:
    """The pages of one layer. Donate them to the jitted function that writes to them.

    Attributes:
      pages: `[pages, page_size, 2 K, H]`, keys at even heads and values at odd ones; bfloat16,
        float16, float32, or int8 or float8_e4m3fn with scales.
      scales: float32 `[pages, 2 K, page_size]`, what a stored number is multiplied with; None
        where `pages` is not quantised.
    """

    pages: jax.Array
    scales: jax.Array | None

    @property
    def page_size(self) -> int:
        return self.pages.shape[1]

    @property
    def num_kv_heads(self) -> int:
        return self.pages.shape[2] // 2


def init_pages(
    num_pages: int, page_size: int, num_kv_heads: int, head_dim: int, dtype: jnp.dtype
) -> KVPages:
    """Empty pages of one layer; int8 and float8_e4m3fn get scales.

    Raises `InputError` for a dtype that pages cannot have.
    """
    check_cache_dtype(dtype)
    pages = jnp.zeros((num_pages, page_size, 2 * num_kv_heads, head_dim), dtype)
    if jnp.dtype(dtype) not in QUANTIZED_DTYPES:
        return KVPages(pages, None)
    return KVPages(pages, jnp.zeros((num_pages, 2 * num_kv_heads, page_size), jnp.float32))


def quick_page_dtype(dtype: jnp.dtype, platform: str) -> jnp.dtype:
    """What pages of `dtype` should be on `platform`, so that every number read is the same.

    XLA's CPU backend neither looks up nor writes a part of an array of 16-bit floats: it turns the
    whole of it into float32 and back, for a single token too. So there such pages are float32,
    into which every such number fits.
    """
    is_wide = platform == "cpu" and jnp.dtype(dtype) in (jnp.bfloat16, jnp.float16)
    return jnp.dtype(jnp.float32 if is_wide else dtype)


def write_pages(
    pages: KVPages,
    page_table: jax.Array,
    positions: jax.Array,
    key: jax.Array,
    value: jax.Array,
) -> KVPages:
    """The pages with T new tokens of each row in them, quantised if the pages are.

    A scatter of whole tokens; in place where `pages` is donated.

    Args:
      pages: of this layer.
      page_table: int32 `[B, P]`: the page of positions `p * page_size` up to the next multiple.
      positions: int32 `[B, T]`, where each token stands in its row. A token at a negative position
        is padding and is not written. One past the row's last page is the caller's mistake: it is
        not written either, so that it cannot land in the page of another row.
      key, value: `[B, K, T, H]`.
    """
    num_pages, page_size, num_heads, head_dim = pages.pages.shape
    B, T = positions.shape
    row = jnp.arange(B)[:, None]
    page = page_table.at[row, positions // page_size].get(mode="fill", fill_value=num_pages)
    # Out of bounds is dropped, but a negative index would count from the end.
    page = jnp.where((positions < 0) | (page < 0), num_pages, page)
    slot = positions % page_size
    tokens = jnp.stack([key, value], axis=2)  # [B, K, 2, T, H]
    tokens = jnp.moveaxis(tokens, 3, 1).reshape(B, T, num_heads, head_dim)
    scales = pages.scales
    if scales is not None:
        tokens, new_scales = quantize_rows(tokens, pages.pages.dtype)
        # Number by number: of a whole column of heads some TPUs' compilers turn all scales around.
        heads = jnp.arange(num_heads)
        scales = scales.at[page[..., None], heads, slot[..., None]].set(new_scales, mode="drop")
    tokens = tokens.astype(pages.pages.dtype)
    return KVPages(pages.pages.at[page, slot].set(tokens, mode="drop"), scales)
