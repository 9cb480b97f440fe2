"""The dtypes that weights are stored in, and casting between them."""

from typing import Literal

import ml_dtypes
import numpy as np

from llama_jax.errors import InputError

DtypeName = Literal["float32", "bfloat16", "float16"]
DTYPES: dict[str, np.dtype] = {
    "float32": np.dtype(np.float32),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float16": np.dtype(np.float16),
}


def dtype_named(name: str) -> np.dtype:
    """The dtype called `name`. Raises `InputError` for any other name."""
    if name not in DTYPES:
        raise InputError(f"dtype {name!r} is not one of {', '.join(DTYPES)}")
    return DTYPES[name]


def is_lossless(source: np.dtype, target: np.dtype) -> bool:
    """Whether every value of `source` is one of `target`."""
    return source == target or target == np.float32


def cast_tensor(tensor: np.ndarray, dtype: np.dtype, name: str) -> np.ndarray:
    """`tensor` in `dtype`, rounded to nearest even; itself if it is that already.

    Raises `InputError` if a finite value becomes infinite: bfloat16 reaches 3e38, float16 65504.
    """
    if tensor.dtype == dtype:
        return tensor
    # ml_dtypes and numpy differ in whether they warn of an overflow; it is looked for below.
    with np.errstate(over="ignore"):
        result = tensor.astype(dtype)
    if dtype == np.float16 and not np.array_equal(np.isfinite(result), np.isfinite(tensor)):
        raise InputError(f"{name} has values beyond the range of float16; use bfloat16 or float32")
    return result
