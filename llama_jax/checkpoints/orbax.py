"""Our own weights checkpoint: a folder with `llama_jax.json`, and one Orbax leaf per layer tensor.

    llama_jax.json            format version, config, dtype, the size of every file below `weights`
    weights/                  an Orbax checkpoint; a tree {"blocks.3.attention.query": array, ...}
    generation_config.json    and the tokenizer's files, verbatim

A leaf that the sink wrote is a plain file of its values, so reading a part of it is a memory map: a
host touches only the pages of its part. What another version of Orbax may lay out differently is
read through tensorstore.
"""

from pathlib import Path

import numpy as np

from llama_jax.checkpoints.asset_files import read_assets
from llama_jax.checkpoints.dtypes import DTYPES
from llama_jax.checkpoints.interface import TensorSpec
from llama_jax.checkpoints.orbax_layout import (
    DESCRIPTION_FILE,
    FORMAT_VERSION,
    TREE_FOLDER,
    WEIGHTS_FOLDER,
)
from llama_jax.checkpoints.orbax_sink import OrbaxSink
from llama_jax.checkpoints.parameter_names import layer_tensors
from llama_jax.config import ModelConfig
from llama_jax.errors import InputError
from llama_jax.json_file import read_json

__all__ = ["OrbaxSink", "OrbaxSource"]


class OrbaxSource:
    """The folder described above, opened for reading; see `TensorSource`.

    Raises `InputError` if it is unfinished, damaged, or not of a version known here.
    """

    format = "orbax"

    def __init__(self, path: Path):
        self.path = Path(path)
        if not (self.path / DESCRIPTION_FILE).is_file():
            raise InputError(
                f"{self.path}: no {DESCRIPTION_FILE}, so it was not finished; convert again"
            )
        description = read_json(self.path / DESCRIPTION_FILE)
        version = description.get("format_version")
        if version != FORMAT_VERSION:
            raise InputError(
                f"{self.path / DESCRIPTION_FILE}: format_version {version!r} is not "
                f"{FORMAT_VERSION}, the one known here; use the llama-jax that wrote it"
            )
        fields = description.get("config")
        if not isinstance(fields, dict):
            raise InputError(f"{self.path / DESCRIPTION_FILE}: config is missing; convert again")
        try:
            self.config = ModelConfig.from_dict(fields)
        except ValueError as error:  # an InputError is one
            raise InputError(f"{self.path / DESCRIPTION_FILE}: {error}") from error
        self._check_files(description.get("files"))
        self._leaves = {
            tensor.name: _Leaf(self._tree / tensor.name, tensor.shape)
            for tensor in layer_tensors(self.config)
        }
        self.tensors = {name: leaf.spec for name, leaf in self._leaves.items()}
        for leaf in self._tree.iterdir():
            if leaf.is_dir() and leaf.name not in self._leaves:
                raise InputError(f"{leaf}: not a tensor of the config in {DESCRIPTION_FILE}")
        self.assets = read_assets(self.path)

    def read(self, name: str, index: tuple[slice, ...] = ()) -> np.ndarray:
        """The tensor `name` in our layout, or its part `index`: a read-only view of the file."""
        return self._leaves[name].read(index)

    @property
    def _tree(self) -> Path:
        return self.path / WEIGHTS_FOLDER / TREE_FOLDER

    def _check_files(self, files) -> None:
        if not isinstance(files, dict):
            raise InputError(f"{self.path / DESCRIPTION_FILE}: files is missing; convert again")
        for name, size in files.items():
            file = self.path / WEIGHTS_FOLDER / name
            if not file.is_file():
                raise InputError(f"{file}: missing; copy the whole folder again")
            if file.stat().st_size != size:
                raise InputError(
                    f"{file}: has {file.stat().st_size:,} bytes where {size!r} were written; copy "
                    "the whole folder again"
                )


class _Leaf:
    """One array of the Orbax tree, in Zarr 3."""

    def __init__(self, folder: Path, shape: tuple[int, ...]):
        self._folder = folder
        metadata = read_json(folder / "zarr.json")
        dtype = DTYPES.get(metadata.get("data_type"))
        if metadata.get("shape") != list(shape) or dtype is None:
            raise InputError(
                f"{folder}: is {metadata.get('data_type')} {metadata.get('shape')}, but the config "
                f"in {DESCRIPTION_FILE} makes it {list(shape)} of {', '.join(DTYPES)}"
            )
        self.spec = TensorSpec(shape, dtype)
        self._plain_file = self._find_plain_file(metadata)

    def read(self, index: tuple[slice, ...]) -> np.ndarray:
        if self._plain_file is not None:
            mapped = np.memmap(self._plain_file, self.spec.dtype, "r", shape=self.spec.shape)
            return mapped.view(np.ndarray)[index]

        import tensorstore

        kvstore = {"driver": "file", "path": f"{self._folder.absolute()}/"}
        try:
            array = tensorstore.open({"driver": "zarr3", "kvstore": kvstore}, open=True).result()
            return array[index].read().result()
        except ValueError as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"{self._folder}: damaged ({reason}); convert again") from error

    def _find_plain_file(self, metadata: dict) -> Path | None:
        """The file that begins with all values, C order, little endian, if that is the layout: one
        shard of one uncompressed chunk, with its index behind it."""
        shape = list(self.spec.shape)
        values = {"name": "bytes", "configuration": {"endian": "little"}}
        sharding = {
            "chunk_shape": shape,
            "codecs": [values],
            "index_codecs": [values, {"name": "crc32c"}],
        }
        plain = {
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": shape}},
            "chunk_key_encoding": {"name": "default"},
            "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
        }
        file = self._folder.joinpath("c", *"0" * len(shape))
        if any(metadata.get(key) != value for key, value in plain.items()) or not file.is_file():
            return None
        return file if file.stat().st_size >= self.spec.num_bytes else None
