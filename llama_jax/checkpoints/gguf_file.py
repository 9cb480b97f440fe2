"""One GGUF file: its metadata and its tensors, each checked against the file.

Written from the format's description
(https://github.com/ggml-org/ggml/blob/master/docs/gguf.md). `gguf.GGUFReader` believes the file's
counts: an array that claims 2**60 bytes keeps it looping past the end of the file until memory runs
out, and it makes three numpy objects for every token of a vocabulary. The tests hold this reader to
it; block formats and their sizes come from the `gguf` package.
"""

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

from llama_jax.errors import InputError

_DEFAULT_ALIGNMENT = 32
_MAX_ARRAY_ITEMS = 10_000_000  # the largest real array, a merge table, has under a million
_STRING, _ARRAY = 8, 9
# Type code in the file -> struct format.
_SCALARS = {
    0: "<B",
    1: "<b",
    2: "<H",
    3: "<h",
    4: "<I",
    5: "<i",
    6: "<f",
    7: "<?",
    10: "<Q",
    11: "<q",
    12: "<d",
}


@dataclass(frozen=True)
class GgufTensor:
    """What the file says of one tensor.

    Attributes:
      shape: outermost dimension first, as numpy and PyTorch (the file has them reversed).
      kind: how the numbers are stored.
      start: first byte in the file.
      num_bytes: size in the file.
    """

    shape: tuple[int, ...]
    kind: GGMLQuantizationType
    start: int
    num_bytes: int


class GgufFile:
    """A GGUF file (version 2 or 3, little endian) opened for reading.

    Attributes:
      path: the file.
      metadata: key -> int, float, bool, str or a list of them.
      tensors: tensor name -> GgufTensor.

    Raises `InputError` on opening when the file is not GGUF or does not hold what it claims.
    """

    def __init__(self, path: Path):
        self.path = path
        if path.stat().st_size < 24:
            raise InputError(f"{path}: too short for a GGUF file; fetch it again")
        self._bytes = np.memmap(path, np.uint8, mode="r").view(np.ndarray)
        self._buffer = memoryview(self._bytes)
        self._position = 0
        magic, version = bytes(self._take(4)), self._scalar("<I")
        if magic != b"GGUF":
            raise InputError(f"{path}: not a GGUF file (it does not begin with 'GGUF')")
        if version not in (2, 3):
            raise InputError(
                f"{path}: GGUF version {version} is not supported; only 2 and 3, little endian, are"
            )
        num_tensors, num_keys = self._scalar("<Q"), self._scalar("<Q")
        self.metadata: dict[str, Any] = {}
        for _ in range(num_keys):
            key = self._string()
            if key in self.metadata:
                raise InputError(f"{path}: metadata key {key[:200]!r} is given twice")
            self.metadata[key] = self._value(self._scalar("<I"))
        self.tensors = self._tensor_table(num_tensors)

    def rows(self, name: str, start: int, stop: int) -> np.ndarray:
        """Rows `[start, stop)` of a tensor as stored, uint8 `[rows, bytes of a row]`: a view."""
        tensor = self.tensors[name]
        data = self._bytes[tensor.start : tensor.start + tensor.num_bytes]
        return data.reshape(math.prod(tensor.shape[:-1]), -1)[start:stop]

    def _tensor_table(self, num_tensors: int) -> dict[str, GgufTensor]:
        entries = {}
        for _ in range(num_tensors):
            name = self._string()
            if name in entries:
                raise InputError(f"{self.path}: tensor {name[:200]!r} is given twice")
            num_dims = self._scalar("<I")
            if not 1 <= num_dims <= 4:
                raise InputError(f"{self.path}: tensor {name[:200]!r} claims {num_dims} dimensions")
            shape = tuple(self._scalar("<Q") for _ in range(num_dims))[::-1]
            entries[name] = shape, self._scalar("<I"), self._scalar("<Q")
        alignment = self.metadata.get("general.alignment", _DEFAULT_ALIGNMENT)
        if type(alignment) is not int or alignment <= 0:
            raise InputError(f"{self.path}: general.alignment must be positive, not {alignment}")
        data_start = self._position + -self._position % alignment
        tensors, end = {}, data_start
        for name, (shape, kind, offset) in sorted(entries.items(), key=lambda item: item[1][2]):
            tensor = self._tensor(name, shape, kind, data_start + offset)
            if tensor.start < end:
                raise InputError(f"{self.path}: tensor {name[:200]!r} overlaps another")
            end = tensor.start + tensor.num_bytes
            tensors[name] = tensor
        if end > self._bytes.size:
            raise InputError(
                f"{self.path}: its tensors end at byte {end} but the file has {self._bytes.size}; "
                "it was cut short, fetch it again"
            )
        return tensors

    def _tensor(self, name: str, shape: tuple[int, ...], kind: int, start: int) -> GgufTensor:
        try:
            known = GGMLQuantizationType(kind)
        except ValueError as error:
            raise InputError(
                f"{self.path}: tensor {name[:200]!r} has a number format, {kind}, that the "
                "installed gguf package does not know; update it"
            ) from error
        block_size, block_bytes = GGML_QUANT_SIZES[known]
        if not all(shape) or shape[-1] % block_size:
            raise InputError(
                f"{self.path}: tensor {name[:200]!r} of shape {list(shape)} does not divide into "
                f"{known.name} blocks of {block_size}"
            )
        return GgufTensor(shape, known, start, math.prod(shape) // block_size * block_bytes)

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._string()
        if kind in _SCALARS:
            return self._scalar(_SCALARS[kind])
        if kind != _ARRAY:
            raise InputError(f"{self.path}: metadata has a value of unknown type {kind}")
        item_kind, length = self._scalar("<I"), self._scalar("<Q")
        if length > _MAX_ARRAY_ITEMS:
            raise InputError(f"{self.path}: metadata has an array of {length} items; too large")
        if item_kind in _SCALARS:
            item = struct.Struct(_SCALARS[item_kind])
            return [value for (value,) in item.iter_unpack(self._take(length * item.size))]
        if item_kind != _STRING:
            raise InputError(f"{self.path}: metadata has an array of type {item_kind}, not known")
        return [self._string() for _ in range(length)]

    def _string(self) -> str:
        try:
            return str(self._take(self._scalar("<Q")), "utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"{self.path}: metadata has text that is not UTF-8") from error

    def _scalar(self, layout: str) -> Any:
        return struct.unpack(layout, self._take(struct.calcsize(layout)))[0]

    def _take(self, num_bytes: int) -> memoryview:
        start, self._position = self._position, self._position + num_bytes
        if self._position > len(self._buffer):
            raise InputError(
                f"{self.path}: the header runs past the end of the file; fetch it again"
            )
        return self._buffer[start : self._position]
