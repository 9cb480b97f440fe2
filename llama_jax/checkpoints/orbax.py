"""Our own weights checkpoint: a folder with `llama_jax.json`, and one Orbax leaf per layer tensor.

    llama_jax.json            format version, config, dtype, formats of quantised weights, the size
                              of every file below `weights`
    weights/                  an Orbax checkpoint; a tree {"blocks.3.attention.query": array, ...}
    generation_config.json    and the tokenizer's files, verbatim

A leaf that the sink wrote is a plain file of its values, so reading a part of it is a memory map: a
host touches only the pages of its part. What another version of Orbax may lay out differently is
read through tensorstore. A quantised weight has a leaf for its values (two int4 in a byte, see
`int4_packing.py`) and one, `NAME.scales`, for its scales.
"""

from pathlib import Path

import numpy as np

from llama_jax.checkpoints.asset_files import read_assets
from llama_jax.checkpoints.dtypes import DTYPES
from llama_jax.checkpoints.interface import TensorSpec, scales_name
from llama_jax.checkpoints.orbax_layout import (
    DESCRIPTION_FILE,
    FORMAT_VERSION,
    QUANTIZED_VERSION,
    TREE_FOLDER,
    WEIGHTS_FOLDER,
)
from llama_jax.checkpoints.orbax_sink import OrbaxSink
from llama_jax.checkpoints.parameter_names import LayerTensor, layer_tensors
from llama_jax.config import ModelConfig
from llama_jax.errors import InputError
from llama_jax.json_file import read_json
from llama_jax.quantization.int4_packing import packed_shape, unpack_int4
from llama_jax.quantization.quantize import VALUE_DTYPES, scales_shape
from llama_jax.quantization.quantized_tensor import WeightFormat

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
        if version not in (FORMAT_VERSION, QUANTIZED_VERSION):
            raise InputError(
                f"{self.path / DESCRIPTION_FILE}: format_version {version!r} is not "
                f"{FORMAT_VERSION} or {QUANTIZED_VERSION}, those known here; use the llama-jax "
                "that wrote it"
            )
        fields = description.get("config")
        if not isinstance(fields, dict):
            raise InputError(f"{self.path / DESCRIPTION_FILE}: config is missing; convert again")
        try:
            self.config = ModelConfig.from_dict(fields)
        except ValueError as error:  # an InputError is one
            raise InputError(f"{self.path / DESCRIPTION_FILE}: {error}") from error
        self._check_files(description.get("files"))
        formats = self._formats(description.get("formats", {}))
        self._leaves: dict[str, _Leaf] = {}
        for tensor in layer_tensors(self.config):
            self._open_leaves(tensor, formats.get(tensor.name))
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

    def _formats(self, formats) -> dict[str, WeightFormat]:
        """Tensor name -> format, of those that are quantised."""
        place = self.path / DESCRIPTION_FILE
        if not isinstance(formats, dict):
            raise InputError(f"{place}: formats must be an object; quantize again")
        known = {str(known): known for known in WeightFormat}
        products = {
            t.name for t in layer_tensors(self.config) if len(t.shape) > 1 and t.layer is not None
        }
        for name, format_name in formats.items():
            if name not in products or format_name not in known:
                raise InputError(
                    f"{place}: format {str(format_name)[:40]!r} of {name[:80]!r} is not known; use "
                    "the llama-jax that wrote it"
                )
        return {name: known[format_name] for name, format_name in formats.items()}

    def _open_leaves(self, tensor: LayerTensor, weight_format: WeightFormat | None) -> None:
        folder = self._tree / tensor.name
        self._leaves[tensor.name] = _Leaf(folder, tensor.shape, weight_format)
        if weight_format is not None:
            name = scales_name(tensor.name)
            shape = scales_shape(tensor.shape, weight_format, tensor.row.contracted)
            self._leaves[name] = _Leaf(self._tree / name, shape, None)

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
    """One array of the Orbax tree, in Zarr 3; with a format, the values of a quantised weight."""

    def __init__(self, folder: Path, shape: tuple[int, ...], weight_format: WeightFormat | None):
        self._folder = folder
        metadata = read_json(folder / "zarr.json")
        dtypes, self._stored_shape = DTYPES, shape
        if weight_format is WeightFormat.INT4:
            dtypes, self._stored_shape = {"uint8": np.dtype(np.uint8)}, packed_shape(shape)
        elif weight_format is not None:
            dtypes = {VALUE_DTYPES[weight_format].name: VALUE_DTYPES[weight_format]}
        dtype = dtypes.get(metadata.get("data_type"))
        if metadata.get("shape") != list(self._stored_shape) or dtype is None:
            raise InputError(
                f"{folder}: is {metadata.get('data_type')} {metadata.get('shape')}, but the config "
                f"in {DESCRIPTION_FILE} makes it {list(self._stored_shape)} of {', '.join(dtypes)}"
            )
        self._stored_dtype = dtype
        self.spec = TensorSpec(shape, VALUE_DTYPES.get(weight_format, dtype), weight_format)
        self._plain_file = self._find_plain_file(metadata)

    def read(self, index: tuple[slice, ...]) -> np.ndarray:
        if self.spec.format is not WeightFormat.INT4:
            return self._read_stored(index)
        # The last dimension is cut after unpacking, as a byte may belong to both sides of the cut.
        *before, last = (*index, *(slice(None) for _ in self.spec.shape[len(index) :]))
        packed = self._read_stored(tuple(before))
        return unpack_int4(packed, self.spec.shape[-1])[..., last]

    def _read_stored(self, index: tuple[slice, ...]) -> np.ndarray:
        if self._plain_file is not None:
            mapped = np.memmap(self._plain_file, self._stored_dtype, "r", shape=self._stored_shape)
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
        shape = list(self._stored_shape)
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
