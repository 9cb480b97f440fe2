"""Two int4 in a byte, for files: the even one in the low half, as Meta's code packs them.

NumPy gives an int4 a byte of its own. A row of an odd number ends with a half byte of zeros.
"""

import ml_dtypes
import numpy as np

_INT4 = np.dtype(ml_dtypes.int4)


def packed_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Of the bytes of an int4 array of `shape`."""
    return (*shape[:-1], -(-shape[-1] // 2))


def pack_int4(values: np.ndarray) -> np.ndarray:
    """int4 `[..., n]` as uint8 `[..., ceil(n / 2)]`."""
    # The low half of the byte in which NumPy keeps an int4 is its two's complement.
    nibbles = np.ascontiguousarray(values).view(np.uint8) & 0xF
    packed = nibbles[..., ::2].copy()
    packed[..., : values.shape[-1] // 2] |= nibbles[..., 1::2] << 4
    return packed


def unpack_int4(packed: np.ndarray, length: int) -> np.ndarray:
    """Inverse of `pack_int4` for rows of `length`."""
    nibbles = np.empty((*packed.shape[:-1], 2 * packed.shape[-1]), np.uint8)
    nibbles[..., ::2], nibbles[..., 1::2] = packed & 0xF, packed >> 4
    # Sign extension: 8 to 15 are -8 to -1.
    signed = (nibbles.view(np.int8) ^ 8) - 8
    return signed[..., :length].astype(_INT4)
