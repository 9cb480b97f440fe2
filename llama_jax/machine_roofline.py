"""What this machine can do at most: memory bandwidth and matrix-product rate, measured now.

No step of decoding is faster than reading the weights once, and no prefill faster than its
multiplications. Both peaks are the best of several ways (JAX and torch, each dtype), so that a
fraction of them is a fraction of what somebody reached on this machine. A command that cannot ask
for torch measures with JAX alone, and says so.
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


def read_bandwidth(*, with_torch: bool = True, budget: float = _SECONDS) -> float:
    """Bytes per second at which all cores together read memory, the better of torch and JAX.

    Args:
      budget: seconds for each of them.
    """
    import jax
    import jax.numpy as jnp

    numbers = np.ones(_READ_BYTES // 4, np.float32)
    array = jnp.asarray(numbers)
    add = jax.jit(jnp.sum)
    runs = [lambda: add(array).block_until_ready()]
    if with_torch:
        import torch

        tensor = torch.from_numpy(numbers)
        runs.append(lambda: tensor.sum().item())
    return max(_READ_BYTES / best_seconds(run, budget=budget) for run in runs)


def matmul_rate(dtype: str, *, with_torch: bool = True, budget: float = _SECONDS) -> float:
    """Operations per second of a large matrix product, a multiply-add being two; the arguments are
    those of `read_bandwidth`."""
    import jax
    import jax.numpy as jnp

    size = _MATMUL_SIZE
    array = jnp.ones((size, size), dtype)
    multiply = jax.jit(lambda x: jnp.einsum("ij,kj->ik", x, x, preferred_element_type=jnp.float32))
    runs = [lambda: multiply(array).block_until_ready()]
    if with_torch:
        import torch

        tensor = torch.ones(size, size, dtype=getattr(torch, dtype))
        runs.append(lambda: torch.nn.functional.linear(tensor, tensor))
    return max(2 * size**3 / best_seconds(run, budget=budget) for run in runs)
