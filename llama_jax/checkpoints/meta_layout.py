"""How Meta's model-parallel files cut a tensor, seen in our layout.

Each of n shards holds a run of 1/n of the rows (`ColumnParallelLinear`) or of the columns
(`RowParallelLinear`). In our layout, where head dimensions are split, that is a run of whole heads,
or of the feed-forward or vocabulary dimension: axis `meta_shard_dim` in both layouts. RoPE's row
order is within a head, so it never crosses a shard.

With more shards than KV heads (the 16-way 405B has 8), every KV head is stored in several adjacent
shards, and `params.json` counts the copies.
"""

from dataclasses import dataclass

import numpy as np

from llama_jax.checkpoints.parameter_names import LayerTensor
from llama_jax.checkpoints.rope_layout import (
    half_split_from_interleaved,
    interleaved_from_half_split,
)
from llama_jax.config import ModelConfig
from llama_jax.errors import InputError

KV_PARAMETERS = ("blocks.{}.attention.key", "blocks.{}.attention.value")


@dataclass(frozen=True)
class ShardedTensor:
    """One tensor cut into shards.

    Attributes:
      tensor: the row of the name table at one layer; shapes are those stored, KV copies counted.
      num_shards: number of files.
      axis: the axis that is cut, or None where every shard holds all.
    """

    tensor: LayerTensor
    num_shards: int
    axis: int | None

    @property
    def shard_shape(self) -> tuple[int, ...]:
        """Shape of one shard in our layout."""
        return self._cut(self.tensor.shape)

    @property
    def foreign_shard_shape(self) -> tuple[int, ...]:
        """Shape of one shard in the file."""
        return self._cut(self.tensor.foreign_shape)

    def _cut(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(
            size // self.num_shards if axis == self.axis else size
            for axis, size in enumerate(shape)
        )

    def read(self, shards: list[np.ndarray], index: tuple[slice, ...]) -> np.ndarray:
        """The part `index` (bounds filled in, steps 1) of the tensor in our layout, from all shards
        as stored; a view where one unrotated shard holds it."""
        if self.axis is None:
            return self._read_shard(shards[0], index)
        run = self.shard_shape[self.axis]
        wanted = index[self.axis]
        parts = []
        for number, shard in enumerate(shards):
            start, stop = max(wanted.start - number * run, 0), min(wanted.stop - number * run, run)
            if start < stop:
                local = list(index)
                local[self.axis] = slice(start, stop)
                parts.append(self._read_shard(shard, tuple(local)))
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=self.axis)

    def _read_shard(self, shard: np.ndarray, index: tuple[slice, ...]) -> np.ndarray:
        shard = shard.reshape(self.shard_shape)
        if not self.tensor.row.rotated:
            return shard[index]
        heads, head_dims, model_dims = index
        return half_split_from_interleaved(shard[heads, :, model_dims])[:, head_dims]

    def shard(self, tensor: np.ndarray, number: int) -> np.ndarray:
        """Shard `number` as the file stores it, from the whole tensor in our layout (KV heads there
        once, without their copies)."""
        if self.axis is not None:
            copies = self.tensor.shape[self.axis] // tensor.shape[self.axis]
            run = self.shard_shape[self.axis]
            start = number * run // copies
            index = [slice(None)] * tensor.ndim
            index[self.axis] = slice(start, start + max(run // copies, 1))
            tensor = tensor[tuple(index)]
        if self.tensor.row.rotated:
            tensor = interleaved_from_half_split(tensor)
        return tensor.reshape(self.foreign_shard_shape)


def stored_kv_heads(config: ModelConfig, num_shards: int) -> int:
    """KV heads in the files, copies counted. Raises `InputError` if `num_shards` fits the sizes of
    `config` neither by cutting nor by copying."""
    kv_heads = config.num_kv_heads
    if num_shards < 1:
        raise InputError(f"--shards {num_shards}: must be at least 1")
    for name, size in (
        ("query heads", config.num_heads),
        ("feed-forward width", config.feed_forward_dim),
        ("vocabulary rows", config.vocab_size),
    ):
        if size % num_shards:
            raise InputError(f"--shards {num_shards}: does not divide the {size} {name}")
    if kv_heads % num_shards and num_shards % kv_heads:
        raise InputError(
            f"--shards {num_shards}: neither divides nor is a multiple of {kv_heads} KV heads"
        )
    return max(kv_heads, num_shards)


def first_of_copies(stored: np.ndarray, copies: int, what: str) -> np.ndarray:
    """`[K * copies, H, D]` -> `[K, H, D]`. Raises `InputError` if the copies differ."""
    groups = stored.reshape(-1, copies, *stored.shape[1:])
    for copy in range(1, copies):
        if not same_bytes(groups[:, 0], groups[:, copy]):
            raise InputError(f"{what}: stored KV heads are not copies as in the other layers")
    return groups[:, 0]


def same_bytes(a: np.ndarray, b: np.ndarray) -> bool:
    """Equality of shape and bits, NaN included."""
    bits = np.dtype(f"u{a.dtype.itemsize}")
    return a.dtype == b.dtype and np.array_equal(a.view(bits), b.view(bits))
