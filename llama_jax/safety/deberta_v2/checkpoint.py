"""Hugging Face folders of `DebertaV2ForSequenceClassification`, through one table of names.

Our layout is PyTorch's `[out, in]` with the heads split, so each tensor is a view of its file.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np

from llama_jax.checkpoints.huggingface import open_tensor_files
from llama_jax.checkpoints.safetensors_file import SafetensorsFile
from llama_jax.errors import InputError
from llama_jax.json_file import read_json
from llama_jax.safety.deberta_v2.classifier import Params, abstract_params
from llama_jax.safety.deberta_v2.config import DebertaConfig, config_from_huggingface

_LAYER = "deberta.encoder.layer.{}"
# Our parameter -> its name there; `{}` is the number of the layer.
NAMES = {
    "embedding": "deberta.embeddings.word_embeddings.weight",
    "position_embedding": "deberta.embeddings.position_embeddings.weight",
    "type_embedding": "deberta.embeddings.token_type_embeddings.weight",
    "embedding_norm.scale": "deberta.embeddings.LayerNorm.weight",
    "embedding_norm.bias": "deberta.embeddings.LayerNorm.bias",
    "distances": "deberta.encoder.rel_embeddings.weight",
    "distances_norm.scale": "deberta.encoder.LayerNorm.weight",
    "distances_norm.bias": "deberta.encoder.LayerNorm.bias",
    "blocks.attention.query": f"{_LAYER}.attention.self.query_proj.weight",
    "blocks.attention.query_bias": f"{_LAYER}.attention.self.query_proj.bias",
    "blocks.attention.key": f"{_LAYER}.attention.self.key_proj.weight",
    "blocks.attention.key_bias": f"{_LAYER}.attention.self.key_proj.bias",
    "blocks.attention.value": f"{_LAYER}.attention.self.value_proj.weight",
    "blocks.attention.value_bias": f"{_LAYER}.attention.self.value_proj.bias",
    "blocks.attention.distance_key": f"{_LAYER}.attention.self.pos_key_proj.weight",
    "blocks.attention.distance_key_bias": f"{_LAYER}.attention.self.pos_key_proj.bias",
    "blocks.attention.distance_query": f"{_LAYER}.attention.self.pos_query_proj.weight",
    "blocks.attention.distance_query_bias": f"{_LAYER}.attention.self.pos_query_proj.bias",
    "blocks.attention.output": f"{_LAYER}.attention.output.dense.weight",
    "blocks.attention.output_bias": f"{_LAYER}.attention.output.dense.bias",
    "blocks.attention_norm.scale": f"{_LAYER}.attention.output.LayerNorm.weight",
    "blocks.attention_norm.bias": f"{_LAYER}.attention.output.LayerNorm.bias",
    "blocks.up": f"{_LAYER}.intermediate.dense.weight",
    "blocks.up_bias": f"{_LAYER}.intermediate.dense.bias",
    "blocks.down": f"{_LAYER}.output.dense.weight",
    "blocks.down_bias": f"{_LAYER}.output.dense.bias",
    "blocks.feed_forward_norm.scale": f"{_LAYER}.output.LayerNorm.weight",
    "blocks.feed_forward_norm.bias": f"{_LAYER}.output.LayerNorm.bias",
    "pooler": "pooler.dense.weight",
    "pooler_bias": "pooler.dense.bias",
    "head": "classifier.weight",
    "head_bias": "classifier.bias",
}
# Of parameters whose heads are one dimension there: which of ours it is split into, with the next.
_HEADS_AT = {
    **{f"{name}{end}": 0 for name in ("query", "key", "value") for end in ("", "_bias")},
    **{f"distance_{name}{end}": 0 for name in ("query", "key") for end in ("", "_bias")},
    "output": 1,
}
# What transformers leaves aside too: a table that a model without absolute positions was trained
# with, and the numbers from 0 on.
_LEFTOVER = re.compile(r"deberta\.embeddings\.position_(embeddings\.weight|ids)")


def load_classifier(folder: str | Path) -> tuple[DebertaConfig, Params]:
    """The classifier in `folder`, float32 on the default device.

    Raises `InputError` that names the file and the key or the tensor, for whatever is missing, of
    another shape, or not part of the model that `config.json` describes.
    """
    folder = Path(folder)
    place = folder / "config.json"
    config = config_from_huggingface(read_json(place), file=place)
    files = open_tensor_files(folder)
    known: set[str] = set()

    def read(path: tuple, spec: jax.ShapeDtypeStruct) -> np.ndarray:
        ours = jax.tree_util.keystr(path, simple=True, separator=".")
        heads_at = _HEADS_AT.get(ours.rpartition(".")[2])
        if not ours.startswith("blocks."):
            known.add(NAMES[ours])
            return _tensor(files, NAMES[ours], spec.shape, heads_at, folder)
        names = [NAMES[ours].format(layer) for layer in range(config.num_layers)]
        known.update(names)
        return np.stack([_tensor(files, name, spec.shape[1:], heads_at, folder) for name in names])

    params = jax.tree_util.tree_map_with_path(read, abstract_params(config))
    for name, file in files.items():
        if name not in known and not _LEFTOVER.fullmatch(name):
            raise InputError(
                f"{file.path}: tensor {name[:200]!r} is not part of the classifier that "
                "config.json describes; remove it or correct config.json"
            )
    return config, jax.device_put(params)


def _tensor(
    files: Mapping[str, SafetensorsFile],
    name: str,
    shape: tuple[int, ...],
    heads_at: int | None,
    folder: Path,
) -> np.ndarray:
    """The tensor `name` in our `shape`, float32."""
    if name not in files:
        raise InputError(f"{folder}: tensor {name} is missing; config.json asks for it")
    expected = shape
    if heads_at is not None:
        joined = shape[heads_at] * shape[heads_at + 1]
        expected = (*shape[:heads_at], joined, *shape[heads_at + 2 :])
    stored = files[name].read(name)
    if stored.shape != expected:
        raise InputError(
            f"{files[name].path}: {name} has shape {list(stored.shape)[:8]}, but config.json makes "
            f"it {list(expected)}"
        )
    return stored.reshape(shape).astype(np.float32)
