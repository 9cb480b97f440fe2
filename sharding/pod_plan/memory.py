"""Bytes of one device: what a step is given, what it needs beside, and what of it is what."""

import math
import re
from dataclasses import dataclass, field
from typing import Any

import jax
import ml_dtypes
import numpy as np

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclass(frozen=True)
class Memory:
    """Bytes of one device.

    Attributes:
      capacity: what the compiler or the data sheet gives it.
      arguments: weights, moments, cache, batch.
      temporaries: what the compiler needs beside them.
      outputs: of results that do not take an argument's place.
      host: of the host, arguments and temporaries, for each device.
      peak: the most at any time.
      groups: what of it is what: of arguments exactly, of temporaries by formula.
    """

    capacity: float
    arguments: int
    temporaries: int
    outputs: int
    host: int
    peak: int
    groups: dict[str, int] = field(default_factory=dict)

    @property
    def fits(self) -> bool:
        return self.peak <= self.capacity


def compiled_memory(
    compiled: jax.stages.Compiled, *, capacity: float, groups: dict[str, int]
) -> Memory:
    """What the compiler says of a program that it could place.

    Args:
      groups: bytes by name; what they leave of the peak is `other temporaries`.
    """
    stats = compiled.memory_analysis()
    new = stats.output_size_in_bytes - stats.alias_size_in_bytes
    sum_of_parts = stats.argument_size_in_bytes + stats.temp_size_in_bytes + new
    peak = stats.peak_memory_in_bytes or sum_of_parts
    host = stats.host_argument_size_in_bytes + stats.host_temp_size_in_bytes
    rest = peak - sum(groups.values())
    return Memory(
        capacity=capacity,
        arguments=stats.argument_size_in_bytes,
        temporaries=stats.temp_size_in_bytes,
        outputs=new,
        host=host,
        peak=peak,
        groups=groups | ({"other temporaries": rest} if rest > 0 else {}),
    )


def bytes_wanted(error: Exception) -> tuple[float, float] | None:
    """What a program needs and what there is, from the compiler's refusal; None of another error.

    libtpu speaks of temporaries and means arguments too: where there is room, the peak of the same
    program is that number.
    """
    message = str(error)
    if "RESOURCE_EXHAUSTED" not in message and "out of memory" not in message.lower():
        return None
    found = re.search(r"\(([\d.]+)([KMGT]?)\) exceeds available HBM \(([\d.]+)([KMGT]?)\)", message)
    found = found or re.search(r"Used ([\d.]+)([KMGT]?) of ([\d.]+)([KMGT]?)", message)
    if not found:
        return None
    needed, unit, there, its_unit = found.groups()
    return float(needed) * _UNITS[unit], float(there) * _UNITS[its_unit]


def bytes_per_device(tree: Any) -> int:
    """What one device holds of a tree of arrays or `ShapeDtypeStruct`s that lie on a mesh; two
    4-bit integers share a byte."""
    return sum(_bytes_on_one(leaf) for leaf in jax.tree.leaves(tree))


def _bytes_on_one(leaf) -> int:
    size = math.prod(leaf.sharding.shard_shape(leaf.shape))
    if leaf.dtype == np.dtype(ml_dtypes.int4):
        return -(-size // 2)
    return size * leaf.dtype.itemsize
