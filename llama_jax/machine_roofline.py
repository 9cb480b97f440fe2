"""What this machine can do at most: memory bandwidth and matrix-product rate, measured now.

No step of decoding is faster than reading the weights once, and no prefill faster than its
multiplications. Both peaks are the best of several ways (JAX and torch, each dtype), so that a
fraction of them is a fraction of what somebody reached on this machine.
"""

import time
from collections.abc import Callable

import numpy as np

_SECONDS = 1.5
_READ_BYTES = 1 << 29  # far over any cache
_MATMUL_SIZE = 2048


def best_seconds(run: Callable[[], object], *, budget: float = _SECONDS) -> float:
    """Shortest duration of `run` within `budget` seconds; it must wait for its own result."""
    run()
    best, end = float("inf"), time.perf_counter() + budget
    while time.perf_counter() < end:
        start = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - start)
    return best


def read_bandwidth() -> float:
    """Bytes per second at which all cores together read memory, the better of torch and JAX."""
    import jax
    import jax.numpy as jnp
    import torch

    numbers = np.ones(_READ_BYTES // 4, np.float32)
    tensor = torch.from_numpy(numbers)
    array = jnp.asarray(numbers)
    add = jax.jit(jnp.sum)
    runs = (lambda: tensor.sum().item(), lambda: add(array).block_until_ready())
    return max(_READ_BYTES / best_seconds(run) for run in runs)


def matmul_rate(dtype: str) -> float:
    """Operations per second of a large matrix product, a multiply-add being two."""
    import jax
    import jax.numpy as jnp
    import torch

    size = _MATMUL_SIZE
    tensor = torch.ones(size, size, dtype=getattr(torch, dtype))
    array = jnp.ones((size, size), dtype)
    multiply = jax.jit(lambda x: jnp.einsum("ij,kj->ik", x, x, preferred_element_type=jnp.float32))
    runs = (
        lambda: torch.nn.functional.linear(tensor, tensor),
        lambda: multiply(array).block_until_ready(),
    )
    return max(2 * size**3 / best_seconds(run) for run in runs)
