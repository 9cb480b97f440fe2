"""JAX's ragged paged attention behind our signature.

JAX's TPU interpreters, of 0.10.2 and of 0.12, know none of the kernel's reshaped references, so its
numbers come from the reference that JAX ships with it, given the same arguments; and the kernel
itself is compiled for every TPU.
"""

import functools
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llama_jax.compile_targets import target_devices
from llama_jax.errors import InputError
from llama_jax.kernels.compiler_report import compile_for_tpu
from llama_jax.kernels.paged_attention import ragged_tpu, reference
from llama_jax.kernels.paged_attention.pages import init_pages

from .paged_cases import random_rows

PACKAGE = "jax.experimental.pallas.ops.tpu.ragged_paged_attention"


def test_the_arguments_mean_to_jax_what_they_mean_to_us(monkeypatch):
    package, kernel = importlib.import_module(PACKAGE), importlib.import_module(f"{PACKAGE}.kernel")

    def in_jnp(*arguments, num_kv_pages_per_block, num_queries_per_block, **options):
        query, pages, lengths, table, *_ = arguments
        assert num_kv_pages_per_block * pages[0].nbytes <= 2**21
        assert 0 < num_queries_per_block <= query.shape[0]
        # A row without tokens breaks the chain of copies, and every fetched page must exist.
        assert np.all(lengths > 0) and np.all((table >= 0) & (table < pages.shape[0]))
        return kernel.ref_ragged_paged_attention(*arguments, **options)

    monkeypatch.setattr(package, "ragged_paged_attention", in_jnp)
    query, pages, table, lengths, *_ = random_rows(
        [18, 16, 1, 0], num_heads=2, num_kv_heads=1, num_queries=2, page_size=16,
        dtype=jnp.float32,
    )  # fmt: skip
    output = ragged_tpu.paged_attention(query, pages, table, lengths, scale=0.1)
    expected = reference.paged_attention(query, pages, table, lengths, scale=0.1)
    # Both in float32, summed in another order.
    np.testing.assert_allclose(output, expected, atol=1e-5)


@pytest.mark.parametrize("target", ["v5e:2x2", "v5p:2x2x1", "v6e:2x2", "tpu7x:2x2x1"])
def test_the_kernel_compiles(target):
    pytest.importorskip("libtpu")
    pages = jax.eval_shape(lambda: init_pages(256, 64, 8, 128, jnp.bfloat16))
    arguments = (
        jax.ShapeDtypeStruct((8, 64, 4, 128), jnp.bfloat16),
        pages,
        jax.ShapeDtypeStruct((8, 128), jnp.int32),
        jax.ShapeDtypeStruct((8,), jnp.int32),
    )
    attend = functools.partial(ragged_tpu.paged_attention, scale=0.1)
    # The kernel's lowering asks which TPU it is for by the default device.
    with jax.default_device(target_devices(target)[0]):
        report = compile_for_tpu(attend, *arguments, target=target)
    assert "ragged_paged_attention_kernel" in report.hlo


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        (dict(head_dim=64), "heads of 128"),
        (dict(page_dtype=jnp.int8), "no scales"),
        (dict(num_heads=3, num_kv_heads=3), "key heads, not 3"),
        (dict(dtype=jnp.float16), "float16"),
    ],
)
def test_what_the_kernel_cannot_do_it_refuses(case, reason):
    case = dict(num_heads=4, num_kv_heads=2) | case
    query, pages, table, lengths, *_ = random_rows([3], **case)
    with pytest.raises(InputError, match=reason):
        ragged_tpu.paged_attention(query, pages, table, lengths, scale=0.1)
