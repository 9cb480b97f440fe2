"""The table of checkpoint formats, and which of them lies at a path.

A format is told by what a file or folder holds, not by its name. Its module is imported when it is
needed: Meta's wants torch, Orbax wants JAX.
"""

import importlib
from pathlib import Path

from llama_jax.checkpoints.interface import TensorSource
from llama_jax.checkpoints.orbax_layout import DESCRIPTION_FILE, WEIGHTS_FOLDER
from llama_jax.checkpoints.training_checkpoint import is_training_checkpoint
from llama_jax.errors import InputError

# The names of the command line (`--to`), and the classes behind them.
SOURCES = {
    "orbax": "llama_jax.checkpoints.orbax:OrbaxSource",
    "hf": "llama_jax.checkpoints.huggingface:HuggingFaceSource",
    "meta": "llama_jax.checkpoints.meta:MetaSource",
    "training": "llama_jax.checkpoints.training_checkpoint:TrainingSource",
    "gguf": "llama_jax.checkpoints.gguf:GgufSource",
}
SINKS = {
    "orbax": "llama_jax.checkpoints.orbax_sink:OrbaxSink",
    "hf": "llama_jax.checkpoints.huggingface_sink:HuggingFaceSink",
    "meta": "llama_jax.checkpoints.meta_sink:MetaSink",
}
_LOOKED_FOR = (
    f"{DESCRIPTION_FILE} (ours, Orbax), checkpoints/ with one that is whole (a training run), "
    "config.json (Hugging Face), params.json and consolidated.*.pth (Meta), a .gguf file"
)


def open_source(path: str | Path) -> TensorSource:
    """The checkpoint at `path`, validated; no weight is read.

    Raises `InputError` that names the file and what to change.
    """
    path = Path(path)
    name = detect_format(path)
    if name == "gguf" and path.is_dir():
        (path,) = path.glob("*.gguf")
    return _load_class(SOURCES[name])(path)


def sink_class(name: str) -> type:
    """The sink of the format `name`. Raises `InputError` for a format that cannot be written."""
    if name not in SINKS:
        raise InputError(f"cannot write format {name!r}; choose one of {', '.join(SINKS)}")
    return _load_class(SINKS[name])


def detect_format(path: Path) -> str:
    """Key of `SOURCES` for what lies at `path`. Raises `InputError` if it is none or not clear."""
    if path.is_file():
        with open(path, "rb") as file:
            if file.read(4) == b"GGUF":
                return "gguf"
        raise InputError(f"{path}: not a GGUF file; give such a file or a checkpoint folder")
    if not path.is_dir():
        raise InputError(f"{path}: no such file or folder")
    if any(path.glob(f"{WEIGHTS_FOLDER}.partial_save")) or (path / DESCRIPTION_FILE).exists():
        return "orbax"
    if is_training_checkpoint(path):
        return "training"
    huggingface = (path / "config.json").exists()
    meta = (path / "params.json").exists() or any(path.glob("consolidated.*.pth"))
    if huggingface and meta:
        raise InputError(
            f"{path}: holds both config.json (Hugging Face) and Meta's params.json or .pth files; "
            "keep one of them in this folder"
        )
    if huggingface or meta:
        return "hf" if huggingface else "meta"
    gguf_files = sorted(path.glob("*.gguf"))
    if len(gguf_files) > 1:
        raise InputError(f"{path}: holds {len(gguf_files)} .gguf files; give the path of one")
    if gguf_files:
        return "gguf"
    raise InputError(f"{path}: no checkpoint there; looked for {_LOOKED_FOR}")


def _load_class(place: str) -> type:
    module, name = place.split(":")
    return getattr(importlib.import_module(module), name)
