"""The Hopper kernel as machine code: registers, memory, instructions. No GPU has run it."""

import functools

import jax
import jax.numpy as jnp
import pytest

from llama_jax.kernels.compiler_report import compile_for_gpu
from llama_jax.kernels.paged_attention import mosaic_gpu
from llama_jax.kernels.paged_attention.pages import init_pages


# The last two columns of products that the kernel takes, `_MAX_QUERY_ROWS`.
@pytest.mark.parametrize(
    ("page_dtype", "num_queries", "group", "columns", "blocks_a_processor"),
    [
        (jnp.bfloat16, 1, 4, 8, 2),
        pytest.param(jnp.int8, 1, 4, 8, 3, marks=pytest.mark.slow),
        (jnp.float8_e4m3fn, 1, 4, 8, 3),
        pytest.param(jnp.bfloat16, 8, 8, 64, 1, marks=pytest.mark.slow),
        (jnp.int8, 5, 8, 40, 2),
    ],
    ids=["bfloat16", "int8", "fp8", "bfloat16-64", "int8-40"],
)
def test_it_fits_registers_and_memory(page_dtype, num_queries, group, columns, blocks_a_processor):
    pytest.importorskip("jax_plugins.xla_cuda13")
    arguments = (
        jax.ShapeDtypeStruct((4, 8 * group, num_queries, 128), jnp.bfloat16),
        jax.eval_shape(lambda: init_pages(64, 64, 8, 128, page_dtype)),
        jax.ShapeDtypeStruct((4, 16), jnp.int32),
        jax.ShapeDtypeStruct((4,), jnp.int32),
    )
    attend = functools.partial(mosaic_gpu.paged_attention, scale=0.1)
    (kernel,) = compile_for_gpu(attend, *arguments).kernels
    assert kernel.spill_bytes == 0
    assert kernel.warnings == ()
    # An SM has 227 KiB of shared memory and 65,536 registers.
    assert blocks_a_processor * kernel.shared_memory_bytes <= 227 * 1024
    assert blocks_a_processor * 128 * kernel.registers <= 65536
    # Both products have the queries as columns: head dim and tokens are rows, 64 at a time.
    product = f"wgmma.mma_async.sync.aligned.m64n{columns}k16.f32.bf16.bf16"
    assert kernel.count(product) == kernel.count("wgmma.mma_async") == 8 + 8
    assert kernel.count("cp.async.bulk.tensor") > 0
