"""The FP8 checkpoints of Meta: `fp8_scales_N.pt` beside `consolidated.NN.pth`, one a shard.

What Meta's own loader reads (llama-models 0.3.0, `llama3/quantization/loader.py`): the feed-forward
weights of all layers but the first and the last are float8_e4m3fn numbers, and the scale of each of
their rows stands in the scales file under `{layer}_feed_forward.{w1|w2|w3}_{shard}`. A weight may
lie in a wider dtype if its numbers are those of float8_e4m3fn.

Each shard was quantised for itself. A row of `w1` and `w3` lies in one shard. A row of `w2` goes
through all of them and has a scale in each, where a weight of ours has one scale a row: the largest
is taken, and what had a smaller one is rounded to it, a second time. That is said in the log.
"""

import logging
from pathlib import Path

import ml_dtypes
import numpy as np

from llama_jax.checkpoints.meta_layout import ShardedTensor
from llama_jax.checkpoints.parameter_names import layer_tensors
from llama_jax.checkpoints.pth_reader import read_pth
from llama_jax.config import ModelConfig
from llama_jax.errors import InputError
from llama_jax.quantization.number_formats import E4M3_MAX
from llama_jax.quantization.recipes import RECIPES

_E4M3 = np.dtype(ml_dtypes.float8_e4m3fn)
_PART_BYTES = 64 * 2**20  # of float32, what is rounded a second time at once
_log = logging.getLogger(__name__)


class MetaScales:
    """The scales files of a folder, all shards.

    Attributes:
      names: our names of the weights that are quantised.

    Raises `InputError` if a file is missing, damaged, or not of this model.
    """

    def __init__(self, folder: Path, num_shards: int, config: ModelConfig):
        paths = [folder / f"fp8_scales_{shard}.pt" for shard in range(num_shards)]
        known = {path.name for path in paths}
        for path in sorted(folder.glob("fp8_scales_*.pt")):
            if path.name not in known:
                raise InputError(f"{path}: is of a shard that has no consolidated.*.pth here")
        self._scales: dict[str, np.ndarray] = {}  # [shards, rows of a shard]
        quantized = {
            tensor.name: ShardedTensor(tensor, num_shards, tensor.row.meta_shard_dim)
            for tensor in layer_tensors(config)
            if RECIPES["fp8"].format_of(tensor.name, config.num_layers) is not None
        }
        files = [_read(path) for path in paths]
        for name, cut in quantized.items():
            rows = [
                _rows(file, path, f"{_key(cut)}_{shard}", cut.foreign_shard_shape[0])
                for shard, (file, path) in enumerate(zip(files, paths, strict=True))
            ]
            self._scales[name] = np.stack(rows)
        for shard, (file, path) in enumerate(zip(files, paths, strict=True)):
            keys = {f"{_key(cut)}_{shard}" for cut in quantized.values()}
            if unknown := sorted(file.keys() - keys):
                raise InputError(f"{path}: {unknown[0][:80]!r} is no weight that Meta quantises")
        self.names = frozenset(quantized)
        self._by_rows = {name for name, cut in quantized.items() if cut.axis == 0}
        merged = [name for name in self.names - self._by_rows if self._differ(name)]
        if merged:
            _log.warning(
                "note: %s: the %d shards scale rows of down apart; they are brought to one scale a "
                "row, which rounds those weights a second time",
                folder,
                num_shards,
            )

    def read(self, name: str) -> np.ndarray:
        """The scales of the weight `name`, float32 `[out]`."""
        scales = self._scales[name]
        return scales.reshape(-1) if name in self._by_rows else scales.max(0)

    def values(
        self, name: str, stored: ShardedTensor, parts: list[np.ndarray], index: tuple[slice, ...]
    ) -> np.ndarray:
        """The part `index` of the values of `name`, float8_e4m3fn, for the scales of `read`."""
        found = _as_e4m3(stored.read(parts, index), name)
        if name in self._by_rows or not self._differ(name):
            return found
        run = stored.shard_shape[1]
        shares = (self._scales[name] / self.read(name)).T[index[0]]  # [rows, shards]
        shard_of_column = np.arange(stored.tensor.shape[1])[index[1]] // run
        result = np.empty(found.shape, _E4M3)
        step = max(1, _PART_BYTES // (4 * max(1, found.shape[1])))
        for start in range(0, len(found), step):
            rows = slice(start, start + step)
            scaled = found[rows].astype(np.float32) * shares[rows][:, shard_of_column]
            # At most 448 already: a share is at most 1.
            result[rows] = scaled.astype(_E4M3)
        return result

    def _differ(self, name: str) -> bool:
        return bool(np.any(self._scales[name] != self._scales[name][:1]))


def _key(cut: ShardedTensor) -> str:
    """`3_feed_forward.w1` from `layers.3.feed_forward.w1.weight`."""
    name = cut.tensor.foreign_name("meta").removeprefix("layers.").removesuffix(".weight")
    return name.replace(".", "_", 1)


def _read(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise InputError(f"{path}: missing, and other shards have theirs; download it as well")
    return read_pth(path)


def _rows(file: dict[str, np.ndarray], path: Path, key: str, num_rows: int) -> np.ndarray:
    if key not in file:
        raise InputError(f"{path}: {key} is missing; a model of params.json has it")
    scales = file[key]
    if scales.shape not in ((num_rows,), (num_rows, 1)):
        raise InputError(f"{path}: {key} has shape {scales.shape}, and the weight {num_rows} rows")
    scales = scales.reshape(-1).astype(np.float32)
    if not np.all(np.isfinite(scales) & (scales > 0)):
        raise InputError(f"{path}: {key} has scales that are not positive numbers; damaged")
    return scales


def _as_e4m3(values: np.ndarray, name: str) -> np.ndarray:
    if values.dtype == _E4M3:
        return values
    limited = np.clip(values.astype(np.float32), -E4M3_MAX, E4M3_MAX).astype(_E4M3)
    if not np.array_equal(limited.astype(np.float32), values.astype(np.float32)):
        raise InputError(f"{name}: has a scales file, but its numbers are not float8_e4m3fn ones")
    return limited
