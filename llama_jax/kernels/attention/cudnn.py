"""cuDNN's attention through JAX, for NVIDIA GPUs: causal masks and packed documents.

Causal: the public `jax.nn.dot_product_attention`. Packed documents: JAX's private call takes the
first position and the length of each document of a row (Hopper and later), as many as are said
while tracing, and keeps softmax statistics of every token for each of them: 64 documents cost as
much memory as queries of 128 bfloat16 numbers. A batch with a row of more is computed by `chunked`
instead, which is right, and slower; the log says so beforehand. On releases of JAX that put the
documents' keys in the wrong place when there are fewer key heads than query heads (0.10.2 does,
0.12 does not) keys and values are repeated for each query head.

The log-sum-exp is refused: JAX drops its gradient without a word.

Nothing here has run on a GPU: the tests hold the translation of masks against dense ones, and read
the program that JAX would hand to cuDNN.
"""

import functools
import logging

import jax
import jax.numpy as jnp
import numpy as np

from llama_jax.accelerators import is_hopper_or_later
from llama_jax.kernels.attention import chunked
from llama_jax.kernels.attention.case import AttentionCase
from llama_jax.kernels.attention.mask import IntervalMask, MaskForm

# Documents of one row that cuDNN is told of.
MAX_DOCUMENTS = 64

_log = logging.getLogger(__name__)


def refusal(case: AttentionCase) -> str | None:
    """Why `case` cannot be computed; None if it can."""
    if case.platform != "gpu" or "NVIDIA" not in case.device_kind:
        return f"it runs on NVIDIA GPUs, not on {case.device_kind or case.platform}"
    if case.form is MaskForm.INTERVALS:
        return "it takes causal and packed masks, not any intervals"
    if case.num_queries != case.num_keys:
        return f"it takes as many queries as keys, not {case.num_queries} and {case.num_keys}"
    if case.return_lse:
        return "its log-sum-exp has no gradient"
    if case.dtype not in (jnp.bfloat16, jnp.float16):
        return f"it computes bfloat16 and float16, not {case.dtype}"
    hopper = is_hopper_or_later(case.device_kind)
    longest = 256 if hopper else 128
    if case.head_dim > longest or case.head_dim % 8:
        return f"heads are multiples of 8 up to {longest} numbers long, not {case.head_dim}"
    if case.form is MaskForm.PACKED and not hopper:
        return f"packed documents need a Hopper GPU or later, not {case.device_kind}"
    if case.form is MaskForm.PACKED and _packed_attention() is None:
        return f"JAX {jax.__version__} has no call for packed documents that is known here"
    return None


def attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    mask: IntervalMask,
    *,
    scale: float,
    return_lse: bool = False,
    max_documents: int = MAX_DOCUMENTS,
) -> jax.Array:
    """Same contract as `reference.attention`, for causal and packed masks, without `return_lse`.

    Args:
      max_documents: of one row that cuDNN computes, at least 2; costs memory, and time in no known
        measure. A batch in which a row has more is left to `chunked`.
    """
    assert not return_lse and mask.form is not MaskForm.INTERVALS  # see `refusal`
    if mask.form is MaskForm.CAUSAL:
        output = jax.nn.dot_product_attention(
            *map(_tokens_first, (query, key, value)),
            scale=scale,
            is_causal=True,
            implementation="cudnn",
        )
        return _tokens_first(output)
    _tell_of_many_documents(max_documents)
    documents = jnp.sum(_begins(mask.key_start), axis=1)
    return jax.lax.cond(
        jnp.all(documents <= max_documents),
        functools.partial(_packed, scale=scale, max_documents=max_documents),
        functools.partial(chunked.attention, scale=scale, block=chunked.ACCELERATOR_BLOCK),
        query,
        key,
        value,
        mask,
    )


@functools.cache
def _tell_of_many_documents(max_documents: int) -> None:
    _log.info(
        "attention: cudnn leaves a batch with a row of more than %d documents to chunked",
        max_documents,
    )


def document_places(key_start: jax.Array, max_documents: int) -> tuple[jax.Array, jax.Array]:
    """Where the documents of packed rows lie, as JAX's call for cuDNN wants it.

    Args:
      key_start: int32 `[B, T]`, of a packed mask with at most `max_documents` documents a row.

    Returns:
      Offsets int32 `[B, max_documents + 1]`: the first position of each document; lengths int32
      `[B, max_documents]`. Both -1 where there is no document. For `[0, 0, 2, 2, 2]` and 3
      documents: `[0, 2, -1, -1]` and `[2, 3, -1]`.
    """
    length = key_start.shape[1]

    def of_row(begins: jax.Array) -> jax.Array:
        return jnp.nonzero(begins, size=max_documents + 1, fill_value=length)[0]

    first = jax.vmap(of_row)(_begins(key_start)).astype(jnp.int32)
    used = first < length
    lengths = jnp.where(used[:, :-1], first[:, 1:] - first[:, :-1], -1)
    return jnp.where(used, first, -1), lengths


def _begins(key_start: jax.Array) -> jax.Array:
    """bool `[B, T]`: where a document begins."""
    return key_start == jnp.arange(key_start.shape[1], dtype=jnp.int32)


def _packed(query, key, value, mask, *, scale: float, max_documents: int) -> jax.Array:
    packed = _packed_attention()
    if query.shape[1] != key.shape[1] and not _places_grouped_keys():
        group = query.shape[1] // key.shape[1]
        key, value = (jnp.repeat(x, group, axis=1) for x in (key, value))
    offsets, lengths = document_places(mask.key_start, max_documents)
    output = packed.dot_product_attention(
        *map(_tokens_first, (query, key, value)),
        q_seqlen=lengths,
        kv_seqlen=lengths,
        q_offsets=offsets,
        kv_offsets=offsets,
        scale=scale,
        mask_type=packed.MaskType.PADDING_CAUSAL,
        qkv_layout="BTNH",
    )
    return _tokens_first(output)


def _tokens_first(x: jax.Array) -> jax.Array:
    """`[B, N, T, H]` <-> `[B, T, N, H]`, in which alone JAX places documents."""
    return jnp.swapaxes(x, 1, 2)


@functools.cache
def _packed_attention():
    """JAX's private module with the call for packed documents; None if it is not as known here."""
    try:
        from jax._src.cudnn import fused_attention_stablehlo as module

        known = module.dot_product_attention.__kwdefaults__.keys()
        names = module.dot_product_attention.__code__.co_varnames
        fits = {"scale", "mask_type", "qkv_layout"} <= known
        fits &= {"q_seqlen", "kv_seqlen", "q_offsets", "kv_offsets"} <= set(names)
        return module if fits and hasattr(module.MaskType, "PADDING_CAUSAL") else None
    except (ImportError, AttributeError):
        return None


@functools.cache
def _places_grouped_keys() -> bool:
    """Whether JAX counts the keys' offsets in key heads, where there are fewer than query heads.

    Asked of JAX itself: a second document at token 2 of one key head of 8 numbers begins at 16.
    """
    offsets, lengths = np.array([[0, 2, -1]], np.int32), np.array([[2, 2]], np.int32)
    query, key = (jax.ShapeDtypeStruct((1, 4, heads, 8), jnp.bfloat16) for heads in (2, 1))
    with jax.ensure_compile_time_eval():
        *_, placed = _packed_attention()._fix_seqlen_offsets(
            lengths, lengths, jnp.asarray(offsets), jnp.asarray(offsets), query, key
        )
        return int(placed[0, 1]) == 16
