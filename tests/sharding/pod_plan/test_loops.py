"""Trip counts of loops in programs that compilers made."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

from sharding.pod_plan.loops import trip_count

from .absent_machines import program_on

TARGETS = ["v5e:1x1", "h100:1"]
SQUARE = ((256, 256), jnp.float32, P())


def counts_of(target, function, *arrays):
    program = program_on(target, function, *arrays)
    return sorted(
        (
            trip_count(program, computation, one)
            for computation in program.computations.values()
            for one in computation.instructions.values()
            if one.opcode == "while"
        ),
        key=str,
    )


@pytest.mark.parametrize("target", TARGETS)
def test_a_scan_within_a_scan(target):
    def function(x):
        def outer(x, _):
            return jax.lax.scan(lambda x, _: (jnp.tanh(x @ x), None), x, length=7)[0], None

        return jax.lax.scan(outer, x, length=12)[0]

    assert counts_of(target, function, SQUARE) == [12, 7]


@pytest.mark.parametrize("target", TARGETS)
def test_a_backward_scan_and_one_that_begins_elsewhere(target):
    def function(x):
        def loss(x):
            return jax.lax.scan(lambda x, _: (jnp.tanh(x @ x), None), x, length=9)[0].sum()

        x = jax.grad(loss)(x)
        return jax.lax.fori_loop(5, 16, lambda i, x: jnp.sin(x @ x) + i, x)

    assert counts_of(target, function, SQUARE) == [11, 9, 9]


@pytest.mark.parametrize("target", TARGETS)
def test_a_loop_that_data_ends_has_no_count(target):
    def function(x, n):
        return jax.lax.fori_loop(0, n, lambda i, x: jnp.sin(x @ x) + i, x)

    assert counts_of(target, function, SQUARE, ((), jnp.int32, P())) == [None]
