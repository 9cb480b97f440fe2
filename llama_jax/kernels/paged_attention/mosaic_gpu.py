"""Paged decode attention on Hopper: every row is cut into parts, and the parts are combined.

A decode step reads each key and value once and computes 4 Q G H operations for 4 H bytes of
bfloat16: it is bound by memory. The bytes of a step and layer are

    sum of lengths * 2 K (H * bytes of a number + 4, a float32 scale, if quantised)

which for 8 rows of 8,192 tokens of Llama 3.1 8B is 268 MB in bfloat16, 56 us at an H200's 4.8 TB/s,
and 138 MB, 29 us, in int8 or FP8. Few rows and few heads would leave most of the 132 SMs without
work, so a row's tokens are divided over several blocks (flash decoding, split-K). The parts are
combined by their log-sum-exp outside the kernel, in one small XLA fusion.

No GPU has run this. On the first one: correctness (`llama-jax doctor`), then bandwidth over the
number of parts, 2 to 4 stages, and tiles of 128 tokens; for FP8 the conversion by way of float32 is
two instructions a number and may be what limits it (an integer shift and one bfloat16 product by
2^120 would do).
"""

import jax
import jax.numpy as jnp

from llama_jax.accelerators import is_hopper
from llama_jax.errors import InputError
from llama_jax.kernels.paged_attention.case import PagedAttentionCase, case_of
from llama_jax.kernels.paged_attention.mosaic_gpu_part import TILE, attend_parts
from llama_jax.kernels.paged_attention.pages import QUANTIZED_DTYPES, KVPages

# Twice what fits on 132 SMs at two blocks each: rows of unequal length still fill them.
_BLOCKS = 2 * 2 * 132
# Fewer tiles would be over before the ring of stages is full.
_LEAST_TILES = 4
# Columns of a product: of the next multiple of 8 the compiler spills registers.
_MAX_QUERY_ROWS, _MAX_QUERY_ROWS_QUANTIZED = 64, 40


def refusal(case: PagedAttentionCase) -> str | None:
    """Why `case` cannot be computed; None if it can."""
    query_rows = case.num_queries * case.num_heads // case.num_kv_heads
    quantized = case.page_dtype in QUANTIZED_DTYPES
    most_rows = _MAX_QUERY_ROWS_QUANTIZED if quantized else _MAX_QUERY_ROWS
    if case.platform != "gpu" or not is_hopper(case.device_kind):
        return f"runs on Hopper GPUs, not on {case.device_kind}"
    if case.dtype not in (jnp.bfloat16, jnp.float16):
        return f"takes bfloat16 and float16 queries, not {case.dtype}"
    if case.page_dtype != case.dtype and not quantized:
        return f"takes pages of the query's {case.dtype}, int8 or float8_e4m3fn: {case.page_dtype}"
    if case.head_dim not in (64, 128):
        return f"takes heads of 64 and 128, not of {case.head_dim}"
    if case.page_size % TILE:
        return f"takes pages of a multiple of {TILE} tokens, not of {case.page_size}"
    if query_rows > most_rows:
        return f"takes {most_rows} queries for one head of such pages, not {query_rows}"
    return None


def paged_attention(
    query: jax.Array,
    pages: KVPages,
    page_table: jax.Array,
    lengths: jax.Array,
    *,
    scale: float,
    num_parts: int | None = None,
    interpret: bool = False,
) -> jax.Array:
    """Same contract as `reference.paged_attention`.

    Args:
      num_parts: into how many parts each row's tokens are cut; by default, enough to fill a GPU.
      interpret: run on the CPU.

    Raises:
      InputError: what `refusal` says.
    """
    case = case_of(query, pages, platform="gpu", device_kind="NVIDIA H100")
    if reason := refusal(case):
        raise InputError(f"paged attention mosaic_gpu: {reason}")
    B, N, Q, H = query.shape
    K = pages.num_kv_heads
    G = N // K
    if num_parts is None:
        most_tiles = page_table.shape[1] * pages.page_size // TILE
        num_parts = max(1, min(-(-_BLOCKS // (B * K)), most_tiles // _LEAST_TILES))
    rows = query.reshape(B, K, G, Q, H).swapaxes(2, 3).reshape(B, K, Q * G, H)
    padding = -(Q * G) % 8
    output, log2_total = attend_parts(
        jnp.pad(rows, [(0, 0), (0, 0), (0, padding), (0, 0)]),
        pages,
        page_table,
        lengths,
        group=G,
        num_queries=Q,
        num_parts=num_parts,
        scale=scale,
        interpret=interpret,
    )
    output = combine_parts(output, log2_total)[..., : Q * G]  # [B, K, H, Q * G]
    output = output.reshape(B, K, H, Q, G).transpose(0, 1, 4, 3, 2)
    return output.reshape(B, N, Q, H).astype(query.dtype)


def combine_parts(output: jax.Array, log2_total: jax.Array) -> jax.Array:
    """Attention over all parts from attention over each.

    Args:
      output: float32 `[B, K, parts, H, R]`.
      log2_total: float32 `[B, K, parts, R]`, logarithm to base 2 of a part's sum of exponentials.

    Returns:
      float32 `[B, K, H, R]`; zeros where no part sees anything.
    """
    shares = jnp.exp2(log2_total - jnp.max(log2_total, axis=2, keepdims=True))
    # Where all parts are empty the shares are equal, of outputs that are 0.
    shares = shares / jnp.sum(shares, axis=2, keepdims=True)
    return jnp.sum(output * shares[:, :, :, None, :], axis=2)
