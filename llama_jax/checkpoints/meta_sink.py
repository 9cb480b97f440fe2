"""Writes Meta's checkpoint folder, one tensor at a time and in any order.

Each tensor's slices are appended to all shards as it comes (`pth_writer.py`), so memory holds no
more than the tensor at hand and one slice. Meta's `checklist.chk` of MD5 sums is not written: it
would read everything a second time, and the zips carry checksums.
"""

import dataclasses
import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from llama_jax.checkpoints.asset_files import write_assets
from llama_jax.checkpoints.interface import Assets, TensorSpec
from llama_jax.checkpoints.meta_layout import ShardedTensor, stored_kv_heads
from llama_jax.checkpoints.meta_params import params_from_config
from llama_jax.checkpoints.parameter_names import layer_tensors
from llama_jax.checkpoints.planned_tensors import PlannedTensors
from llama_jax.checkpoints.pth_writer import PthWriter
from llama_jax.config import ModelConfig
from llama_jax.json_file import write_json

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
    express, and for a shard count that does not fit the config.
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
        self._planned = PlannedTensors(config, tensors)
        self._tied = config.tied_embeddings
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
        self.path.mkdir(parents=True, exist_ok=True)
        self._files = [
            PthWriter(self.path / f"consolidated.{number:02}.pth", specs)
            for number in range(num_shards)
        ]

    def _dtype(self, name: str) -> np.dtype:
        return self._planned.specs["embedding" if self._tied and name == "head" else name].dtype

    def write(self, name: str, tensor: np.ndarray) -> None:
        """Appends one whole tensor, in our layout and its planned dtype, to all shards."""
        self._planned.strike_off(name, tensor)
        names = ("embedding", "head") if name == "embedding" and self._tied else (name,)
        for cut in (self._stored[each] for each in names):
            for number, file in enumerate(self._files):
                file.write(cut.tensor.foreign_name("meta"), cut.shard(tensor, number))

    def finish(self) -> None:
        """Completes the files; `params.json` comes last."""
        self._planned.check_complete()
        for file in self._files:
            file.finish()
        write_assets(self.path, self._assets)
        if "tokenizer.model" not in self._assets.files:
            _log.warning(
                "note: the source has no tokenizer.model, which Meta's code needs; tokenizer files "
                "of other formats are copied where there are any"
            )
        write_json(self.path / "params.json", self._params)
