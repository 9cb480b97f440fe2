"""Splash attention, the TPU kernels that come with JAX, under this project's contract.

It takes the masks that it can be told of: causal, and packed documents as segment ids, for which
`key_start` serves. Keys and values of a group are not repeated, but fetched for each query head.
Blocks above the diagonal are skipped; blocks of two different documents are computed and masked.
`flash_tpu` takes every other mask, and gives the log-sum-exp.

Sources: `jax.experimental.pallas.ops.tpu.splash_attention`. What it costs according to the compiler
is in `tests/benchmarks/results/tpu_attention.json`, with these blocks and with those of 2048 that
are usual: within 7 % of each other.
"""

import jax
import jax.numpy as jnp

from llama_jax.kernels.attention.blocks import pad_to_blocks
from llama_jax.kernels.attention.case import AttentionCase
from llama_jax.kernels.attention.mask import IntervalMask, MaskForm
from llama_jax.kernels.attention.saved import ATTENTION

# Larger ones need `--xla_tpu_scoped_vmem_limit_kib=98304` when libtpu starts.
BLOCKS = (1024, 512)
# Keys computed at once.
COMPUTE_KEYS = 512
LANES = 128
# The backward kernel that shares its products keeps one gradient of all queries for each block of
# keys: 8 of them here, 128 at 128K. Longer rows take two kernels, and 7 products instead of 5.
LONGEST_FUSED = 8192
# Ids of documents are positions.
PADDING = -1


def refusal(case: AttentionCase) -> str | None:
    """Why `case` cannot be computed; None if it can."""
    if case.platform != "tpu":
        return f"it runs on TPUs, not on {case.platform}"
    if case.form is MaskForm.INTERVALS:
        return "it takes causal and packed masks, not any intervals"
    if case.num_queries != case.num_keys:
        return f"it takes as many queries as keys, not {case.num_queries} and {case.num_keys}"
    if case.return_lse:
        return "its log-sum-exp has no gradient"
    if case.dtype not in (jnp.bfloat16, jnp.float32):
        return f"it computes bfloat16 and float32, not {case.dtype}"
    if case.head_dim != 64 and case.head_dim % LANES:
        return f"heads are 64 or a multiple of 128 numbers long, not {case.head_dim}"
    return None


def attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    mask: IntervalMask,
    *,
    scale: float,
    return_lse: bool = False,
    interpret: bool = False,
    block: int | None = None,
) -> jax.Array:
    """Same contract as `reference.attention`, for causal and packed masks, without `return_lse`.

    Queries are scaled in their own dtype; rows are padded to whole blocks, which nothing sees.
    Products of float32 have `jax_default_matmul_precision`, on a TPU bfloat16's unless it is set.

    Args:
      interpret: computes what the kernels would, in plain XLA, on any platform.
      block: queries, and keys, at once; a multiple of 128, and of 512 beyond that. None:
        `choose_block`.
    """
    assert not return_lse and mask.form is not MaskForm.INTERVALS  # see `refusal`
    T = query.shape[2]
    block = block or choose_block(T)
    query, key, value = (pad_to_blocks(x, block, dim=2) for x in (scale * query, key, value))
    kernel = _kernel(query.shape[1], query.shape[2], block, interpret)
    if mask.form is MaskForm.CAUSAL:
        output = jax.vmap(kernel)(query, key, value)
    else:
        padding = [(0, 0), (0, query.shape[2] - T)]
        documents = jnp.pad(mask.key_start, padding, constant_values=PADDING)
        output = jax.vmap(kernel)(query, key, value, _segment_ids(documents))
    return output[:, :, :T]


def choose_block(length: int) -> int:
    """The block of `BLOCKS` that pads `length` least, the larger of equals; one for short rows."""
    if length <= min(BLOCKS):
        return -(-length // LANES) * LANES
    return min(BLOCKS, key=lambda block: (-length % block, -block))


def _segment_ids(documents: jax.Array):
    from jax.experimental.pallas.ops.tpu import splash_attention

    return splash_attention.SegmentIds(documents, documents)


def _kernel(num_heads: int, length: int, block: int, interpret: bool):
    """The kernel of a causal mask, which holds small arrays that say which blocks to visit."""
    # A second of imports, for those who use it.
    from jax.experimental.pallas.ops.tpu import splash_attention

    fused = length <= LONGEST_FUSED
    sizes = splash_attention.BlockSizes(
        block_q=block,
        block_kv=block,
        block_kv_compute=min(block, COMPUTE_KEYS),
        block_q_dkv=block,
        block_kv_dkv=block,
        block_kv_dkv_compute=min(block, COMPUTE_KEYS),
        block_q_dq=None if fused else block,
        block_kv_dq=None if fused else block,
        use_fused_bwd_kernel=fused,
    )
    causal = splash_attention.CausalMask((length, length))
    return splash_attention.make_splash_mha(
        mask=splash_attention.MultiHeadMask([causal] * num_heads),
        head_shards=1,
        q_seq_shards=1,
        block_sizes=sizes,
        residual_checkpoint_name=ATTENTION,
        interpret=interpret,
    )
