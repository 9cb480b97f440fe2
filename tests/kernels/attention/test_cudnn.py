"""What cuDNN is asked to compute. It needs a GPU: here are the translation of masks, and the call.

The call is read in the program that JAX makes for a GPU; what cuDNN would make of places and
lengths is played by `dense_documents`, from the description in JAX's own docstring.
"""

import json
import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llama_jax.kernels.attention import cudnn, reference
from llama_jax.kernels.attention.mask import causal_mask, packed_mask

# One-token documents; as many documents as are told; one document; padding at the end as another.
ROWS = [[1, 2, 2, 3, 4, 4, 4, 5], [1, 1, 1, 1, 1, 1, 1, 1], [4, 4, 4, 4, 4, 0, 0, 0]]


def test_documents_are_placed_where_the_dense_mask_has_them():
    mask = packed_mask(jnp.array(ROWS))
    offsets, lengths = map(np.asarray, cudnn.document_places(mask.key_start, 5))
    assert offsets.shape == (3, 6) and lengths.shape == (3, 5)
    for row, (begins, ends) in enumerate(zip(mask.key_start, mask.key_end, strict=True)):
        dense = np.zeros((8, 8), bool)
        for begin, length in zip(offsets[row], lengths[row], strict=False):
            if length >= 0:
                document = slice(begin, begin + length)
                dense[document, document] = np.tri(length, dtype=bool)
        keys = np.arange(8)
        expected = (keys >= begins[:, None]) & (keys < ends[:, None])
        np.testing.assert_array_equal(dense, expected)


@pytest.fixture
def cudnn_found(monkeypatch):
    """As on a machine with a Hopper GPU, for as long as programs are only made."""
    from jax._src.cudnn import fused_attention_stablehlo as module

    monkeypatch.setattr(module, "check_cudnn_version", lambda: 91000)
    monkeypatch.setattr(module, "check_compute_capability", lambda capability: True)


@pytest.mark.parametrize(
    ("mask", "mask_type", "documents"),
    [
        (causal_mask(2, 64), "CAUSAL", 1),
        (packed_mask(jnp.ones((2, 64), jnp.int32)), "PADDING_CAUSAL", 7),
    ],
    ids=["causal", "packed"],
)
def test_program_for_a_gpu_calls_cudnn_both_ways(cudnn_found, mask, mask_type, documents):
    query = jax.ShapeDtypeStruct((2, 4, 64, 128), jnp.bfloat16)
    key = jax.ShapeDtypeStruct((2, 2, 64, 128), jnp.bfloat16)

    def gradients(mask, *arrays):
        def total(*arrays):
            output = cudnn.attention(*arrays, mask, scale=0.25, max_documents=7)
            return output.astype(jnp.float32).sum()

        return jax.grad(total, argnums=(0, 1, 2))(*arrays)

    lowered = jax.jit(gradients).trace(mask, query, key, key).lower(lowering_platforms=("cuda",))
    program = lowered.as_text()
    assert "__cudnn$fmhaSoftmax" in program and "__cudnn$fmhaSoftmaxBackward" in program
    calls = re.findall(r'backend_config = "(\{.*?\})", ', program)
    assert len(calls) == 2
    for text in calls:
        call = json.loads(text.replace("\\22", '"'))["cudnn_fmha_backend_config"]
        assert call["mask_type"] == mask_type
        assert call["fmha_scale"] == 0.25
        assert call["max_seg_per_batch"] == documents


def dense_documents(query, key, value, *, q_seqlen, kv_seqlen, q_offsets, kv_offsets, **call):
    """Attention `[B, T, N, H]` within documents of these places and lengths; zeros elsewhere."""
    assert call["mask_type"] == "padding and causal" and call["qkv_layout"] == "BTNH"
    position = jnp.arange(query.shape[1])
    begin, length = q_offsets[:, :-1, None], q_seqlen[:, :, None]
    # [B, documents, T, S]
    inside = (position >= begin) & (position < begin + length)
    visible = inside[..., :, None] & inside[..., None, :] & (position[:, None] >= position)
    visible = jnp.any(visible, axis=1)[:, None]
    group = query.shape[2] // key.shape[2]
    key, value = (jnp.repeat(x, group, axis=2).astype(jnp.float32) for x in (key, value))
    scores = jnp.einsum("BTNH,BSNH->BNTS", query.astype(jnp.float32), key) * call["scale"]
    weights = jax.nn.softmax(jnp.where(visible, scores, -jnp.inf), axis=-1)
    return jnp.einsum("BNTS,BSNH->BTNH", weights, value).astype(query.dtype)


@pytest.mark.parametrize("max_documents", [2, 5], ids=["too many documents", "all documents"])
@pytest.mark.parametrize("places_grouped_keys", [True, False])
def test_packed_rows_equal_the_reference(monkeypatch, max_documents, places_grouped_keys):
    calls = []

    def dot_product_attention(query, key, value, **call):
        calls.append(key.shape[2])
        return dense_documents(query, key, value, **call)

    mask_type = types.SimpleNamespace(PADDING_CAUSAL="padding and causal")
    module = types.SimpleNamespace(dot_product_attention=dot_product_attention, MaskType=mask_type)
    monkeypatch.setattr(cudnn, "_packed_attention", lambda: module)
    monkeypatch.setattr(cudnn, "_places_grouped_keys", lambda: places_grouped_keys)
    mask = packed_mask(jnp.array(ROWS))
    query = jax.random.normal(jax.random.key(0), (3, 4, 8, 16))
    key, value = jax.random.normal(jax.random.key(1), (2, 3, 2, 8, 16))
    output = cudnn.attention(query, key, value, mask, scale=0.25, max_documents=max_documents)
    expected = reference.attention(query, key, value, mask, scale=0.25)
    # float32 sums of at most 8 terms of order one.
    np.testing.assert_allclose(output, expected, atol=1e-6)
    # Traced either way; repeated only where JAX would misplace the keys.
    assert calls == [2 if places_grouped_keys else 4]


def test_jax_is_asked_where_it_places_the_keys_of_documents():
    # JAX 0.10.2 multiplies by query heads, 0.12 by key heads; a release that does neither raises.
    from jax._src.cudnn import fused_attention_stablehlo as module

    assert cudnn._packed_attention() is module
    assert cudnn._places_grouped_keys() in (True, False)
    assert cudnn._places_grouped_keys() == (jax.__version_info__ >= (0, 12))
