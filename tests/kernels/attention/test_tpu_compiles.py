"""The TPU kernels compile for their targets, forward and backward: layouts, memory, registers.

Compiling is the only check of these that a machine without a TPU has; it refuses what does not fit
VMEM, and shapes that the units cannot hold. The numbers are tested in `test_implementations.py`.
"""

import importlib.util

import jax
import jax.numpy as jnp
import pytest

from llama_jax.kernels.attention.implementations import implementation
from llama_jax.kernels.attention.mask import IntervalMask, MaskForm

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed"
)

TARGETS = ["v5e:2x2", "v5p:2x2x1", "v6e:2x2", "tpu7x:2x2x1"]


def compiled_kernels(name, target, *, heads, lengths, head_dim, dtype, form) -> str:
    """The optimised program of all three gradients."""
    from llama_jax.kernels.compiler_report import compile_for_tpu

    attention = implementation(name).attention
    (N, K), (T, S) = heads, lengths

    def gradients(query, key, value, start, end):
        def total(*arrays):
            mask = IntervalMask(start, end, form)
            return attention(*arrays, mask, scale=head_dim**-0.5).astype(jnp.float32).sum()

        return jax.grad(total, argnums=(0, 1, 2))(query, key, value)

    query = jax.ShapeDtypeStruct((1, N, T, head_dim), dtype)
    key = jax.ShapeDtypeStruct((1, K, S, head_dim), dtype)
    bounds = jax.ShapeDtypeStruct((1, T), jnp.int32)
    return compile_for_tpu(gradients, query, key, key, bounds, bounds, target=target).hlo


def test_flash_tpu_compiles_for_a_small_case():
    program = compiled_kernels(
        "flash_tpu",
        "v6e:2x2",
        heads=(4, 1),
        lengths=(128, 256),
        head_dim=128,
        dtype=jnp.bfloat16,
        form=MaskForm.INTERVALS,
    )
    # One kernel each way.
    assert program.count('custom_call_target="tpu_custom_call"') == 2


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_flash_tpu_compiles_for_the_models(target):
    compiled_kernels(
        "flash_tpu",
        target,
        heads=(32, 8),
        lengths=(8192, 8192),
        head_dim=128,
        dtype=jnp.bfloat16,
        form=MaskForm.PACKED,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("heads", "lengths", "head_dim", "dtype"),
    [
        # Llama 3.2 1B; 405B on one of eight devices; a head of 256; keys in several stretches.
        ((32, 8), (2048, 2048), 64, jnp.bfloat16),
        ((16, 1), (1024, 4096), 128, jnp.bfloat16),
        ((2, 2), (512, 4096), 256, jnp.bfloat16),
        ((8, 8), (1024, 16384), 128, jnp.bfloat16),
        ((3, 1), (300, 300), 64, jnp.float32),
    ],
    ids=str,
)
def test_flash_tpu_compiles_for_other_shapes(heads, lengths, head_dim, dtype):
    compiled_kernels(
        "flash_tpu",
        "v5p:2x2x1",
        heads=heads,
        lengths=lengths,
        head_dim=head_dim,
        dtype=dtype,
        form=MaskForm.INTERVALS,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "length", "head_dim", "dtype", "form"),
    [
        *((target, 8192, 128, jnp.bfloat16, MaskForm.PACKED) for target in TARGETS),
        # v5p gives a kernel 16 MiB, the least. Beyond the fused backward kernel; short rows.
        ("v5p:2x2x1", 9216, 128, jnp.bfloat16, MaskForm.CAUSAL),
        ("v5p:2x2x1", 1000, 64, jnp.bfloat16, MaskForm.PACKED),
        ("v5p:2x2x1", 4096, 128, jnp.float32, MaskForm.PACKED),
    ],
    ids=str,
)
def test_splash_compiles_in_the_compilers_default_memory(target, length, head_dim, dtype, form):
    compiled_kernels(
        "splash",
        target,
        heads=(8, 2),
        lengths=(length, length),
        head_dim=head_dim,
        dtype=dtype,
        form=form,
    )
