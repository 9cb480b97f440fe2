"""What a mesh does not divide is one line with the numbers, wherever it is met first."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

from llama_jax.errors import InputError
from llama_jax.kernels.attention.mask import causal_mask
from llama_jax.model import REFERENCE
from sharding.divisibility import check_divides
from sharding.mesh import MeshShape, make_mesh
from sharding.sharded_log_probs import sharded_log_probs
from sharding.sharded_operators import shard_operators
from train.losses.token_log_probs import token_log_probs

MESH = make_mesh(MeshShape(data=2, fsdp=2, tensor=2))


def test_a_dimension_is_divided_by_the_product_of_its_axes():
    check_divides(MESH, {"rows": 8, "heads": 3, "words": 2}, P(("data", "fsdp"), None, "tensor"))
    with pytest.raises(InputError) as error:
        check_divides(MESH, {"rows": 6, "words": 2}, P(("data", "fsdp"), "tensor"))
    assert str(error.value) == (
        "6 rows do not divide among the mesh's data 2 x fsdp 2; make them a multiple of 4, or "
        "change the mesh"
    )


@pytest.mark.parametrize(
    "sizes, message",
    [
        ({"B": 2}, "2 rows do not divide among the mesh's data 2 x fsdp 2"),
        ({"T": 5}, "5 tokens of a row do not divide among the mesh's context 1 x tensor 2"),
        ({"D": 3}, "3 dims of the model do not divide among the mesh's fsdp 2"),
        ({"V": 7}, "7 words of the vocabulary do not divide among the mesh's tensor 2"),
    ],
    ids=str,
)
def test_log_probs_of_arrays_that_do_not_divide(sizes, message):
    sizes = {"B": 4, "T": 6, "D": 4, "V": 8} | sizes
    B, T, D, V = sizes.values()
    arrays = jnp.zeros((B, T, D)), jnp.zeros((V, D)), jnp.zeros((B, T), jnp.int32)
    operator = sharded_log_probs(token_log_probs, MESH, vocab_chunk=8)
    with pytest.raises(InputError, match=message):
        jax.eval_shape(operator, *arrays)


@pytest.mark.parametrize(
    "sizes, message",
    [
        ({"B": 2}, "2 rows do not divide"),
        ({"N": 3, "K": 3}, "3 query heads do not divide among the mesh's tensor 2"),
        ({"K": 1}, "1 key-value heads do not divide among the mesh's tensor 2"),
    ],
    ids=str,
)
def test_attention_of_arrays_that_do_not_divide(sizes, message):
    B, N, K = ({"B": 4, "N": 4, "K": 2} | sizes).values()
    query, key = jnp.zeros((B, N, 8, 4)), jnp.zeros((B, K, 8, 4))
    attention = shard_operators(REFERENCE, MESH).attention
    with pytest.raises(InputError, match=message):
        jax.eval_shape(lambda *x: attention(*x, causal_mask(B, 8), scale=1.0), query, key, key)
