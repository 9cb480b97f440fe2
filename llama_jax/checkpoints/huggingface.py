"""Hugging Face checkpoint folders: `config.json` and safetensors files.

Names and shapes are those of transformers' `LlamaForCausalLM`; the layout differs from ours only by
splitting the head dimensions, so a tensor is read as a view of its file. FP8 weights are those of
`huggingface_fp8.py`. The writing side is in `huggingface_sink.py`.
"""

import re
from pathlib import Path

import numpy as np

from llama_jax.checkpoints.asset_files import read_assets
from llama_jax.checkpoints.huggingface_config import config_from_huggingface
from llama_jax.checkpoints.huggingface_fp8 import (
    CONFIG_KEY,
    is_quantized,
    read_spared,
    scale_name,
)
from llama_jax.checkpoints.huggingface_sink import HuggingFaceSink
from llama_jax.checkpoints.interface import TensorSpec, scales_name
from llama_jax.checkpoints.parameter_names import layer_tensors
from llama_jax.checkpoints.safetensors_file import DTYPES, SafetensorsFile
from llama_jax.errors import InputError
from llama_jax.json_file import read_json
from llama_jax.quantization.quantize import VALUE_DTYPES
from llama_jax.quantization.quantized_tensor import WeightFormat

__all__ = ["HuggingFaceSink", "HuggingFaceSource"]

# RoPE tables that old transformers stored with the weights; they follow from the config.
_LEFTOVER = re.compile(r"model\.(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq")
# A shard is a plain file name: what the name says cannot leave the folder. Where a link of that
# name leads is the user's own doing (the Hugging Face cache is made of links).
_SHARD_NAME = re.compile(r"[\w\-][\w.\-]*\.safetensors", re.ASCII)
_COMPARED_BYTES = 16 << 20


class HuggingFaceSource:
    """A folder with `config.json` and `model.safetensors`, or shards and their index.

    Opening reads headers only, except where a tied model also stores its head: those bytes are
    compared with the embedding. `read` gives views of the mapped files.
    """

    format = "hf"

    def __init__(self, path: Path):
        self.path = Path(path)
        config_path = self.path / "config.json"
        fields = read_json(config_path)
        spared = read_spared(fields, file=config_path)
        plain_fields = {key: value for key, value in fields.items() if key != CONFIG_KEY}
        self.config = config_from_huggingface(plain_fields, file=config_path)
        self.assets = read_assets(self.path, fields)
        self._files = open_tensor_files(self.path)
        self.tensors: dict[str, TensorSpec] = {}
        self._names: dict[str, str] = {}
        for tensor in layer_tensors(self.config):
            name = tensor.foreign_name("huggingface")
            weight_format = WeightFormat.FP8 if is_quantized(tensor, spared) else None
            dtype = self._checked(name, tensor.foreign_shape, weight_format)
            self.tensors[tensor.name] = TensorSpec(tensor.shape, dtype, weight_format)
            self._names[tensor.name] = name
            if weight_format is not None:
                name, ours = scale_name(name), scales_name(tensor.name)
                self._checked(name, (tensor.foreign_shape[0], 1), None)
                outputs = tensor.shape[: len(tensor.shape) - tensor.row.contracted]
                self.tensors[ours] = TensorSpec(outputs, np.dtype(np.float32))
                self._names[ours] = name
        self._refuse_unknown_tensors()

    def read(self, name: str, index: tuple[slice, ...] = ()) -> np.ndarray:
        """The tensor `name` in our layout, or its part `index`: a read-only view of the file."""
        foreign_name, spec = self._names[name], self.tensors[name]
        stored = self._files[foreign_name].read(foreign_name)
        part = stored.reshape(spec.shape)[index]
        # Scales may be stored in fewer bits than we keep them in.
        return part if part.dtype == spec.dtype else part.astype(spec.dtype)

    def _checked(
        self, name: str, shape: tuple[int, ...], weight_format: WeightFormat | None
    ) -> np.dtype:
        """The dtype of the stored tensor `name`, which must be of `shape`."""
        if name not in self._files:
            raise InputError(f"{self.path}: tensor {name} is missing; config.json asks for it")
        path, stored = self._files[name].path, self._files[name].tensors[name]
        if stored.shape != shape:
            raise InputError(
                f"{path}: {name} has shape {list(stored.shape)[:8]}, but config.json makes it "
                f"{list(shape)}"
            )
        dtype = DTYPES[stored.dtype_name]
        if (dtype == VALUE_DTYPES[WeightFormat.FP8]) != (weight_format is not None):
            expected = "F8_E4M3" if weight_format else "F32, F16 or BF16"
            raise InputError(
                f"{path}: {name} is {stored.dtype_name}, but quantization_config in config.json "
                f"makes it {expected}"
            )
        return dtype

    def _refuse_unknown_tensors(self) -> None:
        known = set(self._names.values())
        for name, file in self._files.items():
            if name in known or _LEFTOVER.fullmatch(name):
                continue
            if name == "lm_head.weight" and self.config.tied_embeddings:
                self._check_tied_head()
                continue
            raise InputError(
                f"{file.path}: tensor {name[:200]!r} is not part of the model that config.json "
                "describes; remove it or correct config.json"
            )

    def _check_tied_head(self) -> None:
        """A tied model may store its head too, if it is the embedding."""
        head_file = self._files["lm_head.weight"]
        stored = head_file.tensors["lm_head.weight"]
        embedding = self._files[self._names["embedding"]].tensors[self._names["embedding"]]
        same = (stored.shape, stored.dtype_name) == (embedding.shape, embedding.dtype_name)
        if same:
            head_bytes = head_file.read("lm_head.weight").reshape(-1).view(np.uint8)
            embedding_bytes = self.read("embedding").reshape(-1).view(np.uint8)
            same = all(
                np.array_equal(
                    head_bytes[i : i + _COMPARED_BYTES], embedding_bytes[i : i + _COMPARED_BYTES]
                )
                for i in range(0, head_bytes.size, _COMPARED_BYTES)
            )
        if not same:
            raise InputError(
                f"{head_file.path}: lm_head.weight differs from the embedding, but config.json "
                "ties them; set tie_word_embeddings to false or remove lm_head.weight"
            )


def open_tensor_files(folder: Path) -> dict[str, SafetensorsFile]:
    """Stored tensor name -> the opened file that has it: `model.safetensors`, or a shard that the
    index names. Raises `InputError` where files are missing, damaged or do not agree."""
    single, index_path = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_file() and index_path.is_file():
        raise InputError(f"{folder}: has both {single.name} and {index_path.name}; remove one")
    if single.is_file():
        file = SafetensorsFile(single)
        return dict.fromkeys(file.tensors, file)
    if not index_path.is_file():
        raise InputError(
            f"{folder}: has no {single.name} and no {index_path.name}; if its weights are in "
            "another format, save them as safetensors first"
        )
    weight_map = read_json(index_path).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise InputError(f"{index_path}: weight_map must be an object that names tensors and files")
    files: dict[str, SafetensorsFile] = {}
    for name in weight_map.values():
        if not isinstance(name, str) or not _SHARD_NAME.fullmatch(name):
            raise InputError(
                f"{index_path}: {str(name)[:200]!r} must be the plain name of a .safetensors file "
                "in the same folder"
            )
        if name in files:
            continue
        if not (folder / name).is_file():
            raise InputError(f"{index_path}: names {name}, which is missing; fetch it again")
        files[name] = SafetensorsFile(folder / name)
        for tensor in files[name].tensors:
            if weight_map.get(tensor) != name:
                raise InputError(
                    f"{folder / name}: has tensor {tensor[:200]!r}, which {index_path.name} does "
                    "not place there; make the index and the file agree"
                )
    for tensor, name in weight_map.items():
        if tensor not in files[name].tensors:
            raise InputError(
                f"{index_path}: places {tensor[:200]!r} in {name}, which does not have it"
            )
    return {tensor: files[name] for tensor, name in weight_map.items()}
