"""Writes Meta's checkpoint folder, one tensor at a time and in any order.

Each tensor's slices are appended to all shards as it comes (`pth_writer.py`), so memory holds no
more than the tensor at hand and one slice. Meta's `checklist.chk` of MD5 sums is not written: it
would read everything a second time, and the zips carry checksums.
"""

import dataclasses
import json
import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from llama_jax.checkpoints.interface import Assets, TensorSpec
from llama_jax.checkpoints.meta_layout import ShardedTensor, stored_kv_heads
from llama_jax.checkpoints.meta_params import params_from_config
from llama_jax.checkpoints.parameter_names import layer_tensors
from llama_jax.checkpoints.pth_writer import STORAGE_CLASSES, PthWriter
from llama_jax.config import ModelConfig
from llama_jax.errors import InputError

_log = logging.getLogger(__name__)


class MetaSink:
    """A Meta checkpoint being written.

    Args:
      path: the folder; created.
      config: the network. A tied head is written as a copy of the embedding, because Meta's network
        has no other.
      tensors: our name -> shape and dtype to be written, for every tensor of `config`.
      assets: files to put beside the weights. Generation defaults are kept in a
        `generation_config.json`, which Meta's code does not read.
      num_shards: files to cut the network into. Meta's own are 1 up to 8B, 8 for 70B and 405B. With
        more files than KV heads, KV heads are stored several times (405B in 16).

    Raises `InputError`, before it writes anything, for a config or dtype that Meta's files cannot
    express, for a shard count that does not fit the config, and when the disk has too little room.
    """

    def __init__(
        self,
        path: Path,
        config: ModelConfig,
        tensors: Mapping[str, TensorSpec],
        assets: Assets,
        *,
        num_shards: int,
    ):
        self.path = Path(path)
        self._assets = assets
        self._tensors = dict(tensors)
        self._tied = config.tied_embeddings
        if {t.name: t.shape for t in layer_tensors(config)} != {
            name: spec.shape for name, spec in tensors.items()
        }:
            raise ValueError("tensors are not those of config")
        kv_heads = stored_kv_heads(config, num_shards)
        self._params = params_from_config(config, stored_kv_heads=kv_heads)
        stored = dataclasses.replace(config, num_kv_heads=kv_heads, tied_embeddings=False)
        self._stored = {
            tensor.name: ShardedTensor(tensor, num_shards, tensor.row.meta_shard_dim)
            for tensor in layer_tensors(stored)
        }
        specs = {
            cut.tensor.foreign_name("meta"): TensorSpec(cut.foreign_shard_shape, self._dtype(name))
            for name, cut in self._stored.items()
        }
        self._check_room(num_shards * sum(spec.num_bytes for spec in specs.values()))
        self.path.mkdir(parents=True, exist_ok=True)
        self._files = [
            PthWriter(self.path / f"consolidated.{number:02}.pth", specs)
            for number in range(num_shards)
        ]
        self._unwritten = set(self._tensors)

    def _dtype(self, name: str) -> np.dtype:
        dtype = self._tensors["embedding" if self._tied and name == "head" else name].dtype
        if dtype.name not in STORAGE_CLASSES:
            raise InputError(
                f"{self.path}: cannot store {name} as {dtype}; use --dtype float32, float16 or "
                "bfloat16"
            )
        return dtype

    def _check_room(self, needed: int) -> None:
        places = (self.path, *self.path.absolute().parents)
        free = shutil.disk_usage(next(place for place in places if place.exists())).free
        if needed > free:
            raise InputError(
                f"{self.path}: the checkpoint needs {needed:,} bytes and its disk has {free:,} "
                "free; make room or choose another place"
            )

    def write(self, name: str, tensor: np.ndarray) -> None:
        """Appends one whole tensor, in our layout and its planned dtype, to all shards."""
        spec = self._tensors[name]
        if name not in self._unwritten or (tensor.shape, tensor.dtype) != (spec.shape, spec.dtype):
            raise ValueError(f"{name} was written before, or is not as planned: {spec}")
        self._unwritten.remove(name)
        names = ("embedding", "head") if name == "embedding" and self._tied else (name,)
        for cut in (self._stored[each] for each in names):
            for number, file in enumerate(self._files):
                file.write(cut.tensor.foreign_name("meta"), cut.shard(tensor, number))

    def finish(self) -> None:
        """Completes the files and brings everything to the disk; `params.json` comes last."""
        if self._unwritten:
            raise ValueError(f"not written: {', '.join(sorted(self._unwritten)[:3])} ...")
        for file in self._files:
            file.finish()
        for name, content in self._assets.files.items():
            (self.path / name).parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, bytes):
                (self.path / name).write_bytes(content)
            else:
                shutil.copyfile(content, self.path / name)
        if "tokenizer.model" not in self._assets.files:
            _log.warning(
                "%s: the source has no tokenizer.model, which Meta's code needs; the tokenizer "
                "files that it has are copied",
                self.path,
            )
        if self._assets.generation:
            self._write_json("generation_config.json", dict(self._assets.generation))
        self._write_json("params.json", self._params)
        for path in (*self.path.rglob("*"), self.path):
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)

    def _write_json(self, name: str, fields: dict) -> None:
        (self.path / name).write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")
