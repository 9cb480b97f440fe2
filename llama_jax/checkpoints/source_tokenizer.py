"""The tokenizer of an opened checkpoint of any format."""

import tempfile
from pathlib import Path

from llama_jax.checkpoints.asset_files import write_assets
from llama_jax.checkpoints.interface import TensorSource
from llama_jax.tokenizers import load_tokenizer
from llama_jax.tokenizers.interface import Tokenizer


def source_tokenizer(source: TensorSource) -> Tokenizer:
    """The tokenizer that `source` carries. A GGUF file has it in its metadata, a training run in
    a folder of its own: for a moment, its files are written out where they are looked for.

    Raises `InputError` if there is none, or none that can be used.
    """
    if source.format not in ("gguf", "training") or not source.assets.files:
        return load_tokenizer(source.path)
    with tempfile.TemporaryDirectory() as folder:
        write_assets(Path(folder), source.assets)
        return load_tokenizer(folder)
