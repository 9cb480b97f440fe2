"""Rows to FP8 in one pass, interpreted on a CPU: what `number_formats.quantize_rows` gives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llama_jax.errors import InputError
from llama_jax.kernels.compiler_report import compile_for_gpu
from llama_jax.kernels.matmul.quantize_rows_gpu import quantize_rows_gpu
from llama_jax.quantization.number_formats import E4M3, quantize_rows


@pytest.mark.parametrize("options", [{}, {"bound": 1200.0, "power_of_two": True}], ids=str)
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_numbers_are_those_of_plain_jnp(dtype, options):
    x = jax.random.normal(jax.random.key(0), (2, 4, 2048))
    x = x.at[0, 1].set(0.0).at[0, 2, 7].set(jnp.nan).at[1, 0].multiply(1e6).at[1, 1, 5].set(5e4)
    x = x.at[1, 3].multiply(1e-20).astype(dtype)
    values, scale = quantize_rows_gpu(x, interpret=True, **options)
    wanted_values, wanted_scale = quantize_rows(x, E4M3, **options)
    assert values.shape == x.shape and values.dtype == E4M3
    np.testing.assert_array_equal(scale, wanted_scale)
    differ = np.asarray(values).view(np.uint8) != np.asarray(wanted_values).view(np.uint8)
    # XLA multiplies by the reciprocal of a scale that whole rows share, which is exact for a power
    # of two, and else may take a number that lies between two to the other one.
    assert np.mean(differ) <= (0.0 if options else 1e-3)
    np.testing.assert_allclose(
        np.float32(values), np.float32(wanted_values), rtol=1 / 8, atol=2**-9
    )


@pytest.mark.parametrize("columns", [4096, 14336])
def test_a_row_stays_in_registers_between_its_magnitude_and_its_cast(columns):
    pytest.importorskip("jax_plugins.xla_cuda13")
    x = jax.ShapeDtypeStruct((64, columns), jnp.bfloat16)
    (kernel,) = compile_for_gpu(quantize_rows_gpu, x).kernels
    assert kernel.spill_bytes == 0 and kernel.warnings == ()
    # 128 threads; eight numbers in each load and store, two in each cast.
    assert kernel.ptx.count("ld.global.v4.b32") == columns // 1024
    assert kernel.ptx.count("st.global.v2.b32") == columns // 1024
    assert kernel.ptx.count("cvt.rn.satfinite.e4m3x2.f32") == columns // 256


def test_rows_that_the_kernel_does_not_take_are_refused():
    for x in (jnp.ones((2, 1000)), jnp.ones((2, 15360)), jnp.ones((2, 1024), jnp.float16)):
        with pytest.raises(InputError, match="multiples of 1024 up to 14336"):
            quantize_rows_gpu(x)
