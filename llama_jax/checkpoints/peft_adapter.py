"""LoRA adapters as the PEFT library stores them: `adapter_config.json` and one safetensors file.

    base_model.model.model.layers.3.self_attn.q_proj.lora_A.weight    [rank, in]
    base_model.model.model.layers.3.self_attn.q_proj.lora_B.weight    [out, rank]

PEFT has Hugging Face's names, and a change of a weight has the layout of the weight, so only the
dimensions of heads are split.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from llama_jax.checkpoints.interface import TensorSpec
from llama_jax.checkpoints.parameter_names import PARAMETER_NAMES, layer_tensors
from llama_jax.checkpoints.safetensors_file import SafetensorsFile, plan_safetensors
from llama_jax.checkpoints.typed_fields import TypedFields
from llama_jax.config import ModelConfig
from llama_jax.errors import InputError
from llama_jax.json_file import read_json, write_json

CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."
# Our name of a weight -> PEFT's.
MODULES = {
    row.ours.rpartition(".")[2]: row.huggingface.split(".")[-2]
    for row in PARAMETER_NAMES
    if row.ours.startswith("blocks.") and len(row.dims.split()) > 1
}
# What would change the computation, with the values that do not.
_PLAIN = {
    "peft_type": ("LORA",),
    "bias": ("none",),
    "use_dora": (False, None),
    "use_rslora": (False, None),
    "fan_in_fan_out": (False,),
    "modules_to_save": (None, []),
    "rank_pattern": ({}, None),
    "alpha_pattern": ({}, None),
    "layers_to_transform": (None,),
    "layers_pattern": (None,),
    "layer_replication": (None,),
    "lora_bias": (False, None),
    "trainable_token_indices": (None,),
    "exclude_modules": (None,),
    "target_parameters": (None,),
}


@dataclass(frozen=True)
class PeftAdapter:
    """An adapter on the host.

    Attributes:
      scaling: of every change, alpha / rank.
      down, up: our name of a weight, such as `blocks.3.attention.query` -> `[rank, in]` and
        `[out, rank]`.
    """

    scaling: float
    down: Mapping[str, np.ndarray]
    up: Mapping[str, np.ndarray]

    def change(self, name: str) -> np.ndarray:
        """float32 `[out, in]` that is added to the weight `name`."""
        up, down = (part[name].astype(np.float32) for part in (self.up, self.down))
        return np.float32(self.scaling) * (up @ down)


def is_adapter(path: Path) -> bool:
    """Whether the folder `path` holds an adapter."""
    return (path / CONFIG_FILE).is_file()


def read_adapter(path: Path, config: ModelConfig) -> PeftAdapter:
    """The adapter in the folder `path`, of a model of `config`.

    Raises `InputError` for another kind of adapter, a weight that the model has not, or a shape
    that does not fit.
    """
    file = path / CONFIG_FILE
    if not file.is_file():
        raise InputError(f"{path}: no {CONFIG_FILE}, so it is no adapter of PEFT")
    fields = read_json(file)
    for key, values in _PLAIN.items():
        if key in fields and fields[key] not in values:
            raise InputError(f"{file}: {key} = {str(fields[key])[:80]} is not supported")
    typed = TypedFields(fields, file)
    rank, alpha = typed.integer("r"), typed.number("lora_alpha")
    stored = SafetensorsFile(path / WEIGHTS_FILE)
    down, up, known = {}, {}, set()
    for tensor in layer_tensors(config):
        names = _names(tensor.foreign_name("huggingface"))
        if not known.isdisjoint(names) or names[0] not in stored.tensors:
            continue
        (outputs, inputs), shapes = tensor.foreign_shape, []
        shapes = [(rank, inputs), (outputs, rank)]
        for name, shape, parts in zip(names, shapes, (down, up), strict=True):
            if name not in stored.tensors or stored.tensors[name].shape != shape:
                raise InputError(f"{stored.path}: {name} must be there, of shape {list(shape)}")
            parts[tensor.name] = stored.read(name)
        known |= set(names)
    if unknown := sorted(stored.tensors.keys() - known):
        raise InputError(f"{stored.path}: {unknown[0][:200]!r} changes no weight of the model")
    return PeftAdapter(alpha / rank, down, up)


def write_adapter(
    path: Path, adapter: Mapping[str, tuple[np.ndarray, np.ndarray]], **fields: Any
) -> None:
    """Writes the new folder `path`.

    Args:
      adapter: our name of a weight -> `[rank, in]` and `[out, rank]`.
      fields: `r`, `lora_alpha`, `target_modules` and `base_model_name_or_path`.
    """
    path.mkdir(parents=True)
    tensors: dict[str, np.ndarray] = {}
    rows = {row.ours: row for row in PARAMETER_NAMES}
    for name, parts in adapter.items():
        blocks, layer, *rest = name.split(".")
        row = rows[".".join((blocks, "{}", *rest))]
        tensors |= dict(zip(_names(row.huggingface.format(layer)), parts, strict=True))
    specs = {name: TensorSpec(array.shape, array.dtype) for name, array in tensors.items()}
    layout = plan_safetensors(specs)
    with open(path / WEIGHTS_FILE, "wb") as file:
        file.write(layout.header)
        for name, array in tensors.items():
            file.seek(layout.starts[name])
            file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
    plain = {key: values[0] for key, values in _PLAIN.items()}
    task = {"task_type": "CAUSAL_LM", "inference_mode": True, "lora_dropout": 0.0}
    write_json(path / CONFIG_FILE, {**plain, **task, "init_lora_weights": True, **fields})


def _names(weight: str) -> tuple[str, str]:
    """PEFT's names of the two parts of a change of Hugging Face's `weight`."""
    stem = _PREFIX + weight.removesuffix("weight")
    return f"{stem}lora_A.weight", f"{stem}lora_B.weight"
