"""The Hopper kernels as machine code: registers, memory, instructions. No GPU has run them.

Numbers are tested in `test_implementations.py`, in a simulation where products are done at once: it
would not see a wait for one that is missing. What the compiler sees is tested here.
"""

import jax
import jax.numpy as jnp
import pytest

from llama_jax.kernels.attention import mosaic_gpu
from llama_jax.kernels.attention.mask import IntervalMask
from llama_jax.kernels.compiler_report import compile_for_gpu

# What a multiprocessor of an H100 has for one block of threads: bytes, and 32-bit registers.
SHARED_MEMORY, REGISTERS = 227 * 1024, 65536


@pytest.mark.parametrize(
    ("num_heads", "head_dim", "dtype"),
    [
        (8, 128, jnp.bfloat16),
        # The groups of 70B and of 405B: the loop over heads changes what registers hold.
        pytest.param(16, 128, jnp.bfloat16, marks=pytest.mark.slow),
        pytest.param(32, 128, jnp.bfloat16, marks=pytest.mark.slow),
        pytest.param(8, 64, jnp.float16, marks=pytest.mark.slow),
    ],
)
def test_the_kernels_keep_their_registers_and_their_products_in_flight(num_heads, head_dim, dtype):
    """Forward, gradient of the queries, gradients of keys and values."""
    pytest.importorskip("jax_plugins.xla_cuda13")
    query = jax.ShapeDtypeStruct((1, num_heads, 384, head_dim), dtype)
    key = jax.ShapeDtypeStruct((1, 2, 512, head_dim), dtype)
    bounds = jax.ShapeDtypeStruct((1, 384), jnp.int32)

    def gradients(query, key, value, start, end):
        def total(*arrays):
            output = mosaic_gpu.attention(*arrays, IntervalMask(start, end), scale=0.1)
            return output.astype(jnp.float32).sum()

        return jax.grad(total, argnums=(0, 1, 2))(query, key, value)

    kernels = compile_for_gpu(gradients, query, key, key, bounds, bounds).kernels
    for kernel in kernels:
        assert kernel.spill_bytes == 0
        # ptxas warns where it cannot keep a product in flight.
        assert kernel.warnings == ()
        assert kernel.shared_memory_bytes <= SHARED_MEMORY
        # Three warpgroups, at launch.
        assert 3 * 128 * kernel.registers <= REGISTERS
        # At least queries, keys and values in, a result out.
        assert kernel.count("cp.async.bulk.tensor") >= 4
        # With mask and without: what needs the first of two products begins when that is done.
        assert kernel.ptx.count("wgmma.wait_group.sync.aligned \t1;") == 2
    # One instruction takes 16 numbers of the contracted dimension: a head, 128 keys, or in the
    # kernel for keys and values 64 queries, twice. Forward: scores and values, of the first block
    # or the last and of others with mask and without. Backward: with mask and without.
    of_heads, of_keys = head_dim // 16, 128 // 16
    backward = 2 * (2 * of_heads + of_keys)
    expected = [3 * (of_heads + of_keys), backward, backward]
    assert sorted(kernel.count("wgmma.mma_async") for kernel in kernels) == sorted(expected)
