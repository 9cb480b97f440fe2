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

# Of a multiprocessor of an H100, for one block of threads.
SHARED_MEMORY = 227 * 1024


def kernels_of(function, *, head_dim, dtype, lengths=(512, 512)):
    """Reports of the kernels of `function(query, key, value, mask)`."""
    pytest.importorskip("jax_plugins.xla_cuda13")
    T, S = lengths
    query = jax.ShapeDtypeStruct((1, 8, T, head_dim), dtype)
    key = jax.ShapeDtypeStruct((1, 2, S, head_dim), dtype)
    bounds = jax.ShapeDtypeStruct((1, T), jnp.int32)

    def run(query, key, value, start, end):
        return function(query, key, value, IntervalMask(start, end))

    return compile_for_gpu(run, query, key, key, bounds, bounds).kernels


@pytest.mark.parametrize(
    ("head_dim", "dtype"), [(64, jnp.float16), (64, jnp.bfloat16), (128, jnp.bfloat16)]
)
def test_the_forward_kernel_keeps_its_registers_and_its_products_in_flight(head_dim, dtype):
    def forward(query, key, value, mask):
        return mosaic_gpu.attention(query, key, value, mask, scale=0.1, return_lse=True)

    (kernel,) = kernels_of(forward, head_dim=head_dim, dtype=dtype)
    assert kernel.spill_bytes == 0
    # ptxas warns where it cannot keep a product in flight.
    assert kernel.warnings == ()
    assert kernel.shared_memory_bytes <= SHARED_MEMORY
    # Three warpgroups, at launch.
    assert 3 * 128 * kernel.registers <= 65536
    # Scores of the first block, of the others with mask and without; values with either, and of
    # the last block. 16 numbers of the contracted dimension at once.
    scores, values = head_dim // 16, 128 // 16
    assert kernel.count("wgmma.mma_async") == 3 * scores + 3 * values
    # Where both products are in flight, softmax begins when the first is done.
    assert kernel.ptx.count("wgmma.wait_group.sync.aligned \t1;") == 2
    # Queries, keys and values in, the output out.
    assert kernel.count("cp.async.bulk.tensor") >= 4
