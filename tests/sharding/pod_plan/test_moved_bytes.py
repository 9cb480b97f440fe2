"""Bytes that instructions move: of what is sliced or written in part, that part."""

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from sharding.pod_plan.hlo import parse_program
from sharding.pod_plan.moved_bytes import moved_bytes

from .absent_machines import program_on

WRITTEN = """%fused (param_0: f32[1024,128], param_1: f32[1,128], param_2: s32[]) -> f32[1024,128] {
  %param_0 = f32[1024,128]{1,0} parameter(0)
  %param_1 = f32[1,128]{1,0} parameter(1)
  %param_2 = s32[] parameter(2)
  %zero = s32[] constant(0)
  ROOT %update.1 = f32[1024,128]{1,0} dynamic-update-slice(%param_0, %param_1, %param_2, %zero)
}

ENTRY %main (a: f32[1024,128], b: f32[1,128], i: s32[]) -> f32[1024,128] {
  %a = f32[1024,128]{1,0} parameter(0)
  %b = f32[1,128]{1,0:S(1)} parameter(1)
  %i = s32[] parameter(2)
  ROOT %write = f32[1024,128]{1,0} fusion(%a, %b, %i), kind=kLoop, calls=%fused
}
"""


def moved(program, kind="fusion"):
    entry = program.entry
    return [
        moved_bytes(program, entry, one)
        for one in entry.instructions.values()
        if one.opcode == kind
    ]


def test_an_update_writes_its_part_and_fast_memory_is_free():
    # The new row lies in fast memory already, and the index is four bytes.
    assert moved(parse_program(WRITTEN)) == [128 * 4 + 4]


def test_a_slice_of_a_stack_reads_one_layer_on_a_gpu():
    layers, size = 64, 512
    program = program_on(
        "h100:1",
        lambda stack, i: jnp.tanh(jax.lax.dynamic_index_in_dim(stack, i, keepdims=False)),
        ((layers, size, size), jnp.float32, P()),
        ((), jnp.int32, P()),
    )
    assert sum(moved(program)) - 2 * size * size * 4 in range(0, 64)


def test_all_of_an_array_that_is_used_whole():
    program = program_on("h100:1", lambda x: jnp.sin(x) + 1, ((256, 256), jnp.float32, P()))
    assert moved(program) == [2 * 256 * 256 * 4]
