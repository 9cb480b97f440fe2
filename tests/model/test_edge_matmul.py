"""The first and the last block may multiply otherwise than those between."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llama_jax.config import TINY
from llama_jax.errors import InputError
from llama_jax.model import (
    REFERENCE,
    Operators,
    forward,
    forward_cached,
    init_cache,
    init_params,
    unstack_blocks,
)

# Compiling is nearly all of the time of these tests.
pytestmark = pytest.mark.usefixtures("quick_compilation")

FOUR = dataclasses.replace(TINY, num_layers=4)
TOKENS = jax.random.randint(jax.random.key(1), (2, 9), 0, FOUR.vocab_size)


def nothing(x, weight, *, contracted=1):
    """A product that is zero, so that a block passes on what it is given."""
    return 0 * REFERENCE.matmul(x, weight, contracted=contracted)


def cached(params, *, config, operators):
    cache = init_cache(config, 2, 9, jnp.float32)
    return forward_cached(
        unstack_blocks(params), TOKENS, cache, config=config, operators=operators
    )[0]


def whole(params, *, config, operators, remat="none"):
    return forward(params, TOKENS, config=config, operators=operators, remat=remat)


@pytest.mark.parametrize("run", [whole, cached])
def test_only_the_blocks_between_use_the_other_product(run):
    params = init_params(FOUR, jax.random.key(0))
    outer = {**params, "blocks": jax.tree.map(lambda x: x[jnp.array([0, 3])], params["blocks"])}
    two = dataclasses.replace(FOUR, num_layers=2)
    between = Operators(REFERENCE.attention, nothing, edge_matmul=REFERENCE.matmul)
    expected = run(outer, config=two, operators=REFERENCE)
    # The same products of the same numbers; adding zero changes nothing.
    np.testing.assert_allclose(
        run(params, config=FOUR, operators=between), expected, rtol=1e-6, atol=1e-6
    )
    np.testing.assert_allclose(
        run(outer, config=two, operators=between), expected, rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize("remat", ["none", "full"])
def test_gradients_are_those_of_one_loop(remat):
    params = init_params(FOUR, jax.random.key(0))

    def same(x, weight, *, contracted=1):
        return REFERENCE.matmul(x, weight, contracted=contracted)

    def gradient(operators):
        loss = lambda params: jnp.sum(  # noqa: E731
            whole(params, config=FOUR, operators=operators, remat=remat) ** 2
        )
        return jax.jit(jax.grad(loss))(params)

    split = Operators(REFERENCE.attention, REFERENCE.matmul, edge_matmul=same)
    jax.tree.map(
        # float32, summed alike; XLA may fuse otherwise.
        lambda result, wanted: np.testing.assert_allclose(
            result, wanted, atol=1e-5 * np.abs(wanted).max()
        ),
        gradient(split),
        gradient(REFERENCE),
    )


def test_blocks_that_are_not_stacked_refuse_what_they_would_not_do():
    layers = unstack_blocks(init_params(FOUR, jax.random.key(0)))
    with pytest.raises(InputError, match="remat 'full' is for stacked blocks"):
        whole(layers, config=FOUR, operators=REFERENCE, remat="full")
