"""Meta's checkpoint folder: `params.json`, `consolidated.NN.pth` (one per model-parallel shard).

Reading is lazy: files are memory-mapped, and a tensor is put together from its shards when asked
for. Four things that the files do not say are found out at opening:

* Whether the head is tied. Meta's network always has an `output.weight`; Llama 3.2 stores the
  embedding there. The two are compared piece by piece. Where they differ that ends at the first
  piece, so only a tied model pays: it reads both matrices once (1.1 GB for 3.2 1B).
* Whether KV heads are stored more than once, as in the 16-way 405B. If there are as many shards as
  KV heads, the first layer's keys are compared (67 MB for 405B); later, each tensor that is read.
* Whether feed-forward weights are FP8: there are scales files then (`meta_fp8.py`).
* Which dimension cuts the embedding: the vocabulary (Llama 3) or the width (Llama 2), by its shape.

The writing side is in `meta_sink.py`.
"""

import dataclasses
from pathlib import Path

import numpy as np

from llama_jax.checkpoints.asset_files import read_assets
from llama_jax.checkpoints.interface import TensorSpec, scales_name
from llama_jax.checkpoints.meta_fp8 import MetaScales
from llama_jax.checkpoints.meta_layout import (
    KV_PARAMETERS,
    ShardedTensor,
    first_of_copies,
    same_bytes,
)
from llama_jax.checkpoints.meta_params import config_from_params
from llama_jax.checkpoints.meta_sink import MetaSink
from llama_jax.checkpoints.parameter_names import LayerTensor, layer_tensors
from llama_jax.checkpoints.pth_reader import read_pth
from llama_jax.errors import InputError
from llama_jax.json_file import read_json
from llama_jax.quantization.quantize import VALUE_DTYPES
from llama_jax.quantization.quantized_tensor import WeightFormat

__all__ = ["MetaSink", "MetaSource"]

# A buffer of older files that the network computes itself.
_HARMLESS_TENSORS = {"rope.freqs"}
_COMPARED_BYTES = 16 * 2**20


class MetaSource:
    """A Meta checkpoint opened for reading; see `TensorSource`.

    Args:
      path: folder with `params.json` and `consolidated.00.pth`, `.01.pth`, ...

    Raises `InputError` naming the file and what is wrong with it.
    """

    format = "meta"

    def __init__(self, path: Path):
        self.path = Path(path)
        self._paths = _shard_paths(self.path)
        params_path = self.path / "params.json"
        fields = read_json(params_path)
        self._shards = [read_pth(path) for path in self._paths]
        stored = config_from_params(
            fields, file=params_path, vocab_rows=self._vocab_rows(), tied_embeddings=False
        )
        self._check_shard_count(stored)
        self._scales = None
        if any(self.path.glob("fp8_scales_*.pt")):
            self._scales = MetaScales(self.path, len(self._paths), stored)
        self._stored = self._checked_tensors(stored)
        self._kv_copies = self._count_kv_copies(stored.num_kv_heads)
        self.config = dataclasses.replace(
            stored,
            num_kv_heads=stored.num_kv_heads // self._kv_copies,
            tied_embeddings=self._is_tied(),
        )
        self.assets = read_assets(self.path)
        self.tensors: dict[str, TensorSpec] = {}
        for tensor in layer_tensors(self.config):
            self._add(tensor)

    def read(self, name: str, index: tuple[slice, ...] = ()) -> np.ndarray:
        """See `TensorSource.read`. A view of the file if one shard holds it all and it is not
        rotated.

        Raises `InputError` if shards that should hold the same values do not.
        """
        weight = name.removesuffix(scales_name(""))
        if self._scales is not None and weight != name:
            return self._scales.read(weight)[index]
        shape = self.tensors[name].shape
        index = (*index, *(slice(None) for _ in shape[len(index) :]))
        bounds = [part.indices(size) for part, size in zip(index, shape, strict=True)]
        assert all(step == 1 for _, _, step in bounds), index
        index = tuple(slice(start, stop) for start, stop, _ in bounds)
        stored, parts = self._stored[name], self._parts(name)
        if self.tensors[name].format is not None:
            return self._scales.values(name, stored, parts, index)
        if stored.axis is None and any(not same_bytes(parts[0], part) for part in parts[1:]):
            raise InputError(f"{self.path}: {name} differs between shards of one model")
        if self._kv_copies > 1 and stored.tensor.row.ours in KV_PARAMETERS:
            heads = slice(index[0].start * self._kv_copies, index[0].stop * self._kv_copies)
            copies = stored.read(parts, (heads, *index[1:]))
            return first_of_copies(copies, self._kv_copies, f"{self.path}: {name}")
        return stored.read(parts, index)

    def _add(self, tensor: LayerTensor) -> None:
        """Puts `tensor` among `tensors`, and its scales if it has any."""
        name, dtype = tensor.name, self._parts(tensor.name)[0].dtype
        if self._scales is not None and name in self._scales.names:
            fp8 = VALUE_DTYPES[WeightFormat.FP8]
            self.tensors[name] = TensorSpec(tensor.shape, fp8, WeightFormat.FP8)
            scales = TensorSpec(tensor.shape[:1], np.dtype(np.float32))
            self.tensors[scales_name(name)] = scales
        elif dtype.itemsize == 1:
            raise InputError(
                f"{self.path}: {name} is {dtype}, and no fp8_scales_*.pt says what its numbers "
                "stand for; download those as well"
            )
        else:
            self.tensors[name] = TensorSpec(tensor.shape, dtype)

    def _parts(self, name: str) -> list[np.ndarray]:
        foreign_name = self._stored[name].tensor.foreign_name("meta")
        return [shard[foreign_name] for shard in self._shards]

    def _vocab_rows(self) -> int:
        for path, shard in zip(self._paths, self._shards, strict=True):
            if "output.weight" not in shard:
                raise InputError(f"{path}: tensor output.weight is missing; not a text Llama")
        return sum(len(shard["output.weight"]) for shard in self._shards)

    def _check_shard_count(self, stored) -> None:
        for name in ("num_heads", "num_kv_heads", "feed_forward_dim", "vocab_size"):
            if getattr(stored, name) % len(self._paths):
                raise InputError(
                    f"{self.path}: {len(self._paths)} consolidated files do not divide {name} "
                    f"{getattr(stored, name)} of params.json; files are missing or of another model"
                )

    def _checked_tensors(self, stored) -> dict[str, ShardedTensor]:
        """Every tensor of the stored network, after checking that each file has it and no other."""
        num_shards = len(self._paths)
        checked = {}
        for tensor in layer_tensors(stored):
            name = tensor.foreign_name("meta")
            cut = ShardedTensor(tensor, num_shards, tensor.row.meta_shard_dim)
            # Llama 2's `ParallelEmbedding` cuts the width.
            by_width = ShardedTensor(tensor, num_shards, 1)
            for path, shard in zip(self._paths, self._shards, strict=True):
                if name not in shard:
                    raise InputError(f"{path}: tensor {name} is missing; params.json asks for it")
                if tensor.name == "embedding" and shard[name].shape == by_width.foreign_shard_shape:
                    cut = by_width
                if shard[name].shape != cut.foreign_shard_shape:
                    raise InputError(
                        f"{path}: {name} has shape {shard[name].shape}, but params.json and "
                        f"{num_shards} shards need {cut.foreign_shard_shape}; is every "
                        "consolidated.*.pth of the model here?"
                    )
                if shard[name].dtype != self._shards[0][name].dtype:
                    raise InputError(f"{path}: {name} is not of the dtype that shard 0 has")
            checked[name] = cut
        for path, shard in zip(self._paths, self._shards, strict=True):
            for name in sorted(shard.keys() - checked.keys() - _HARMLESS_TENSORS):
                raise InputError(
                    f"{path}: unknown tensor {name}; only dense text Llama is supported"
                )
        return {cut.tensor.name: cut for cut in checked.values()}

    def _is_tied(self) -> bool:
        rows, width = self._stored["head"].tensor.shape
        embedding, head = self._parts("embedding"), self._parts("head")
        run = max(1, _COMPARED_BYTES // (width * head[0].itemsize))
        for start in range(0, rows, run):
            index = (slice(start, min(start + run, rows)), slice(0, width))
            ours = self._stored["embedding"].read(embedding, index)
            if not same_bytes(ours, self._stored["head"].read(head, index)):
                return False
        return True

    def _count_kv_copies(self, kv_heads: int) -> int:
        if len(self._paths) != kv_heads:
            return 1
        heads = np.stack([part.reshape(-1) for part in self._parts("blocks.0.attention.key")])
        heads = heads.view(np.dtype(f"u{heads.itemsize}"))  # bits: NaN equals itself
        if np.any(np.all(heads == heads[:, :1], axis=1)):
            return 1  # constant heads, as in a file of zeros, are no evidence
        for copies in range(kv_heads, 1, -1):
            if kv_heads % copies == 0:
                groups = heads.reshape(-1, copies, heads.shape[1])
                if np.array_equal(groups, np.broadcast_to(groups[:, :1], groups.shape)):
                    return copies
        return 1


def _shard_paths(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise InputError(f"{folder}: not a folder; a Meta checkpoint is one with params.json")
    paths = sorted(folder.glob("consolidated.*.pth"))
    if not paths:
        raise InputError(f"{folder}: no consolidated.00.pth; a Meta checkpoint folder has one")
    for number, path in enumerate(paths):
        if path.name != f"consolidated.{number:02}.pth":
            raise InputError(
                f"{folder}: consolidated.{number:02}.pth is missing though {path.name} is there; "
                "download all shards"
            )
    return paths
