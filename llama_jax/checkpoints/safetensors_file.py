"""One safetensors file: its header checked and its tensors mapped, or a header to be written.

The format is eight bytes of header length, a JSON header `{name: {dtype, shape, data_offsets}}` and
the tensors' bytes without gaps (https://github.com/huggingface/safetensors, "Format"). We map it
ourselves because the library's numpy side has no bfloat16 and copies each tensor into anonymous
memory; a view of the mapped file costs only page cache, whatever the checkpoint's size. Everything
the header says is checked against the file before a tensor is handed out.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np

from llama_jax.checkpoints.interface import TensorSpec
from llama_jax.errors import InputError
from llama_jax.json_file import parse_json

DTYPES = {
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
}
_MAX_HEADER_BYTES = 100_000_000  # the limit of the reference implementation


@dataclass(frozen=True)
class StoredTensor:
    """What the header says of one tensor; `start` counts from the beginning of the file."""

    dtype_name: str
    shape: tuple[int, ...]
    start: int
    num_bytes: int


class SafetensorsFile:
    """A safetensors file opened for reading.

    Attributes:
      path: the file.
      tensors: tensor name -> StoredTensor.

    Raises `InputError` on opening when the header is not valid or does not fit the file.
    """

    def __init__(self, path: Path):
        self.path = path
        file_size = path.stat().st_size
        with open(path, "rb") as file:
            header_size = int.from_bytes(file.read(8), "little")
            if file_size < 8 or header_size > min(file_size - 8, _MAX_HEADER_BYTES):
                raise InputError(
                    f"{path}: not a safetensors file, or cut short: it has {file_size} bytes and "
                    f"claims a header of {header_size}; fetch it again"
                )
            header = parse_json(file.read(header_size), f"{path}: header")
        header.pop("__metadata__", None)
        self.tensors = {
            name: _stored_tensor(name, entry, 8 + header_size, path)
            for name, entry in header.items()
        }
        end = 8 + header_size
        for name, stored in sorted(self.tensors.items(), key=_position):
            if stored.start != end:
                raise InputError(f"{path}: {name!r} overlaps another tensor or leaves a gap")
            end += stored.num_bytes
        if end != file_size:
            raise InputError(
                f"{path}: its tensors end at byte {end} but the file has {file_size}; it was cut "
                "short or changed, fetch it again"
            )
        self._bytes = np.memmap(path, np.uint8, mode="r").view(np.ndarray)

    def read(self, name: str) -> np.ndarray:
        """The tensor in its stored shape and dtype, one of `DTYPES`: a view of the file."""
        stored = self.tensors[name]
        part = self._bytes[stored.start : stored.start + stored.num_bytes]
        return part.view(DTYPES[stored.dtype_name]).reshape(stored.shape)


def _position(item: tuple[str, StoredTensor]) -> tuple[int, int]:
    return item[1].start, item[1].num_bytes  # an empty tensor goes before what begins at its place


def _stored_tensor(name: str, entry, data_start: int, path: Path) -> StoredTensor:
    where = f"{path}: header of {name[:200]!r}"
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise InputError(f"{where}: must have dtype, shape and data_offsets")
    dtype_name, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    for numbers in (shape, offsets):
        if not isinstance(numbers, list) or not all(type(n) is int and n >= 0 for n in numbers):
            raise InputError(f"{where}: shape and data_offsets must be lists of counts")
    if not isinstance(dtype_name, str) or dtype_name not in DTYPES:
        raise InputError(
            f"{where}: dtype {str(dtype_name)[:40]!r} is not supported; convert the tensor to one "
            f"of {', '.join(DTYPES)}"
        )
    if len(shape) > 8 or len(offsets) != 2:
        raise InputError(f"{where}: shape or data_offsets has too many numbers")
    num_bytes = math.prod(shape) * DTYPES[dtype_name].itemsize
    if offsets[1] - offsets[0] != num_bytes:
        raise InputError(f"{where}: shape, dtype and data_offsets do not agree")
    return StoredTensor(dtype_name, tuple(shape), data_start + offsets[0], num_bytes)


@dataclass(frozen=True)
class SafetensorsLayout:
    """Where each tensor of a file to be written goes.

    Attributes:
      header: the file's first bytes.
      starts: tensor name -> its first byte in the file.
      num_bytes: size of the whole file.
    """

    header: bytes
    starts: Mapping[str, int]
    num_bytes: int


def plan_safetensors(tensors: Mapping[str, TensorSpec]) -> SafetensorsLayout:
    """Layout of a file with these tensors, each of a dtype in `DTYPES`.

    Wider dtypes come first, so that every tensor is aligned to its items.
    """
    dtype_names = {dtype: name for name, dtype in DTYPES.items()}
    entries: dict = {"__metadata__": {"format": "pt"}}  # transformers 4 refuses a file without
    end, starts = 0, {}
    for name, spec in sorted(tensors.items(), key=lambda item: -item[1].dtype.itemsize):
        starts[name] = end
        end += spec.num_bytes
        entries[name] = {
            "dtype": dtype_names[spec.dtype],
            "shape": list(spec.shape),
            "data_offsets": [starts[name], end],
        }
    header = json.dumps(entries, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    header = len(header).to_bytes(8, "little") + header
    starts = {name: len(header) + start for name, start in starts.items()}
    return SafetensorsLayout(header, starts, len(header) + end)
