"""Matrix products in plain jnp: the two layouts give the same numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llama_jax.kernels.matmul import flattened, reference


@pytest.mark.parametrize("matmul", [reference.matmul, flattened.matmul])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_equals_numpy(matmul, dtype):
    x = jax.random.normal(jax.random.key(0), (2, 3, 4, 5)).astype(dtype)
    weight = jax.random.normal(jax.random.key(1), (7, 4, 5)).astype(dtype)
    for contracted, equation, w in ((1, "btni,oi->btno", weight[0]), (2, "btni,oni->bto", weight)):
        result = matmul(x, w, contracted=contracted)
        expected = np.einsum(equation, np.float64(x), np.float64(w))
        assert result.dtype == dtype
        # Accumulated in float32, rounded once to the dtype: half a unit in the last place.
        tolerance = 1e-6 if dtype == jnp.float32 else 2**-8
        np.testing.assert_allclose(np.float64(result), expected, rtol=tolerance, atol=1e-6)
