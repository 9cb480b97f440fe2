"""What the KV cache can hold, as the command line names it."""

from typing import Any, Literal

CacheDtype = Literal["float32", "bfloat16", "float16", "int8", "fp8"]


def cache_dtype_named(name: CacheDtype | None) -> Any:
    """A dtype for `init_cache`; None stays None, which is the weights' own."""
    import jax.numpy as jnp

    if name is None:
        return None
    return jnp.dtype(jnp.float8_e4m3fn if name == "fp8" else name)
