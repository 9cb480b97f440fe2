"""Operations of the products that compilers make of einsums, against the einsums' own."""

import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

from sharding.pod_plan.products import product_flops

from .absent_machines import program_on


def flops_of(target, einsum, *shapes, dtype=jnp.bfloat16):
    program = program_on(
        target, lambda *arrays: jnp.einsum(einsum, *arrays), *((s, dtype, P()) for s in shapes)
    )
    entry = program.entry
    return sum(product_flops(program, entry, one) for one in entry.instructions.values())


@pytest.mark.parametrize("target", ["v5e:1x1", "h100:1"])
@pytest.mark.parametrize(
    ("einsum", "shapes", "multiply_adds"),
    [
        ("TD,DF->TF", [(256, 384), (384, 512)], 256 * 384 * 512),
        ("DT,FD->FT", [(384, 256), (512, 384)], 256 * 384 * 512),
        # Two inputs, and heads as two outputs.
        ("BTNH,NHD->BTD", [(2, 256, 4, 128), (4, 128, 512)], 2 * 256 * 4 * 128 * 512),
        # A product for each row and head.
        ("BTKH,BSKH->BKTS", [(2, 256, 4, 128), (2, 384, 4, 128)], 2 * 4 * 256 * 384 * 128),
        ("EBT,EBD->ETD", [(3, 256, 128), (3, 256, 384)], 3 * 256 * 128 * 384),
    ],
)
def test_einsums(target, einsum, shapes, multiply_adds):
    assert flops_of(target, einsum, *shapes) == 2 * multiply_adds
