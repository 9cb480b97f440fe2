"""Writes a Hugging Face checkpoint folder, one tensor at a time and in any order.

Every shard is laid out before the first byte: its header is written and its length set, and each
tensor then goes to its place by a plain write. So memory holds no more than the tensor at hand.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from llama_jax.checkpoints.asset_files import write_assets
from llama_jax.checkpoints.huggingface_config import config_to_huggingface
from llama_jax.checkpoints.huggingface_fp8 import CONFIG_KEY, quantization_config, scale_name
from llama_jax.checkpoints.interface import Assets, TensorSpec, scales_name
from llama_jax.checkpoints.parameter_names import layer_tensors
from llama_jax.checkpoints.planned_tensors import PlannedTensors
from llama_jax.checkpoints.safetensors_file import SafetensorsLayout, plan_safetensors
from llama_jax.config import ModelConfig
from llama_jax.json_file import write_json
from llama_jax.quantization.quantized_tensor import WeightFormat

_TOKEN_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


class HuggingFaceSink:
    """A folder with `config.json`, `generation_config.json`, safetensors shards, their index if
    there are several, and the asset files.

    Args:
      path: the folder; created.
      config: the model.
      tensors: our name -> shape and dtype to be written, for every tensor of `config`.
      assets: files to copy beside, and generation defaults.
      shard_bytes: the most bytes of tensors in one file; a larger tensor has a file of its own.

    Raises `InputError`, before it writes anything, for a config or dtype that the format does not
    have.
    """

    def __init__(
        self,
        path: Path,
        config: ModelConfig,
        tensors: Mapping[str, TensorSpec],
        assets: Assets,
        *,
        shard_bytes: int = 5 * 10**9,
    ):
        self.path = Path(path)
        self._assets = assets
        self._planned = PlannedTensors(config, tensors, formats=(WeightFormat.FP8,))
        stored = _stored_tensors(config, tensors)
        self._foreign_names = {ours: name for ours, (name, _) in stored.items()}
        self._config_fields = config_to_huggingface(config, _common_dtype(tensors)) | {
            key: assets.generation.get(key) for key in _TOKEN_IDS
        }
        if quantization := quantization_config(config, tensors):
            self._config_fields[CONFIG_KEY] = quantization
        self._layouts = _plan_shards(stored.values(), shard_bytes)
        self._file_of = {
            name: file for file, layout in self._layouts.items() for name in layout.starts
        }
        self.path.mkdir(parents=True, exist_ok=True)
        for file, layout in self._layouts.items():
            with open(self.path / file, "wb") as shard:
                shard.write(layout.header)
                shard.truncate(layout.num_bytes)

    def write(self, name: str, tensor: np.ndarray) -> None:
        """Stores one whole tensor, in our layout and its planned dtype."""
        self._planned.strike_off(name, tensor)
        foreign_name = self._foreign_names[name]
        file = self._file_of[foreign_name]
        with open(self.path / file, "r+b") as shard:
            shard.seek(self._layouts[file].starts[foreign_name])
            shard.write(np.ascontiguousarray(tensor).reshape(-1).view(np.uint8))

    def finish(self) -> None:
        """Writes the small files; `config.json` comes last."""
        self._planned.check_complete()
        write_assets(self.path, self._assets)
        if len(self._layouts) > 1:
            total = sum(spec.num_bytes for spec in self._planned.specs.values())
            index = {"metadata": {"total_size": total}, "weight_map": self._file_of}
            write_json(self.path / "model.safetensors.index.json", index)
        write_json(self.path / "config.json", self._config_fields)


def _common_dtype(tensors: Mapping[str, TensorSpec]) -> np.dtype:
    """The dtype that transformers should load into, and compute in: float32 holds every mixture of
    those that are not quantised."""
    quantized = {name for name, spec in tensors.items() if spec.format is not None}
    scales = {scales_name(name) for name in quantized}
    dtypes = {spec.dtype for name, spec in tensors.items() if name not in quantized | scales}
    return dtypes.pop() if len(dtypes) == 1 else np.dtype(np.float32)


def _stored_tensors(
    config: ModelConfig, tensors: Mapping[str, TensorSpec]
) -> dict[str, tuple[str, TensorSpec]]:
    """Our name -> name and spec in the files, in the order of the forward pass."""
    stored = {}
    for tensor in layer_tensors(config):
        name, spec = tensor.foreign_name("huggingface"), tensors[tensor.name]
        stored[tensor.name] = name, TensorSpec(tensor.foreign_shape, spec.dtype)
        if spec.format is not None:
            scales = TensorSpec((tensor.foreign_shape[0], 1), np.dtype(np.float32))
            stored[scales_name(tensor.name)] = scale_name(name), scales
    return stored


def _plan_shards(
    tensors: Iterable[tuple[str, TensorSpec]], shard_bytes: int
) -> dict[str, SafetensorsLayout]:
    """File name -> layout, filled in the order of `tensors`."""
    shards: list[dict[str, TensorSpec]] = [{}]
    room = shard_bytes
    for name, spec in tensors:
        if spec.num_bytes > room and shards[-1]:
            shards.append({})
            room = shard_bytes
        shards[-1][name] = spec
        room -= spec.num_bytes
    if len(shards) == 1:
        return {"model.safetensors": plan_safetensors(shards[0])}
    return {
        f"model-{number:05d}-of-{len(shards):05d}.safetensors": plan_safetensors(shard)
        for number, shard in enumerate(shards, 1)
    }
