"""Writes a `.pth` file tensor by tensor, without holding a state dict.

The format (torch.save's since 1.6) is an uncompressed zip: `data.pkl`, a pickle of the state dict
whose storages are only named, and one record `data/N` of raw little-endian bytes for each storage.
Records may come in any order, so a tensor is appended when it arrives and the pickle goes last: a
file that was cut off has no pickle and cannot be mistaken for a whole one.

Why not `torch.save` on fake tensors with `skip_data`, then the bytes filled in: that API is marked
a prototype, and the zip's CRC32 would be those of no data. Python's `zipfile` writes true checksums
and Zip64. Records start at multiples of 64 bytes, so that `torch.load(mmap=True)` gives aligned
tensors.
"""

import contextlib
import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from llama_jax.checkpoints.interface import TensorSpec

_ALIGNMENT = 64
_LOCAL_HEADER_BYTES = 30
_ZIP64_FIELD_BYTES = 20
_PIECE_BYTES = 16 * 2**20
STORAGE_CLASSES = {
    "float32": "FloatStorage",
    "float16": "HalfStorage",
    "bfloat16": "BFloat16Storage",
}


class PthWriter:
    """One `.pth` file being written.

    Args:
      path: the file; its stem names the folder inside the archive, as torch.save does.
      tensors: name -> shape and dtype of every tensor, in state dict order.
    """

    def __init__(self, path: Path, tensors: Mapping[str, TensorSpec]):
        self._tensors = dict(tensors)
        self._storage_keys = {name: str(i) for i, name in enumerate(self._tensors)}
        self._missing = set(self._tensors)
        self._stem = path.stem
        self._zip = zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True)

    def write(self, name: str, tensor: np.ndarray) -> None:
        """Appends one tensor. A strided one is copied, so pass one shard's slice at a time."""
        spec = self._tensors[name]
        assert (tensor.shape, tensor.dtype) == (spec.shape, spec.dtype), name
        self._missing.remove(name)
        content = memoryview(np.ascontiguousarray(tensor).reshape(-1).view(np.uint8))
        pieces = (content[i : i + _PIECE_BYTES] for i in range(0, len(content), _PIECE_BYTES))
        self._append(f"data/{self._storage_keys[name]}", len(content), pieces)

    def finish(self) -> None:
        """Writes the pickle and closes the file."""
        assert not self._missing, sorted(self._missing)
        for record, content in (
            ("data.pkl", _state_dict_pickle(self._tensors, self._storage_keys)),
            ("byteorder", b"little"),
            ("version", b"3\n"),
        ):
            self._append(record, len(content), [content])
        self._zip.close()

    def _append(self, record: str, num_bytes: int, pieces: Iterable) -> None:
        entry = zipfile.ZipInfo(f"{self._stem}/{record}")
        entry.file_size = num_bytes
        before_data = self._zip.start_dir + _LOCAL_HEADER_BYTES + len(entry.filename)
        padding = -(before_data + 4 + _ZIP64_FIELD_BYTES) % _ALIGNMENT
        # An extra field "FB", the mark that torch.save gives its own padding.
        entry.extra = b"FB" + padding.to_bytes(2, "little") + b"Z" * padding
        try:
            with self._zip.open(entry, "w", force_zip64=True) as stream:
                for piece in pieces:
                    stream.write(piece)
        except OSError:
            self._abandon()
            raise

    def _abandon(self) -> None:
        """Lets go of the file after a failed write (disk full): closing the archive normally would
        write its directory, and fail again when it is collected."""
        file, self._zip.fp = self._zip.fp, None
        with contextlib.suppress(OSError):
            file.close()


class _Storage:
    """Stands for a torch storage in the pickle, by key."""

    def __init__(self, key: str, spec: TensorSpec):
        self.key = key
        self.spec = spec


class _Tensor:
    """Pickles as torch pickles a contiguous tensor."""

    def __init__(self, key: str, spec: TensorSpec):
        self._storage = _Storage(key, spec)

    def __reduce__(self):
        import torch._utils

        shape = self._storage.spec.shape
        strides = tuple(int(np.prod(shape[i + 1 :], dtype=np.int64)) for i in range(len(shape)))
        arguments = (self._storage, 0, shape, strides, False, OrderedDict())
        return torch._utils._rebuild_tensor_v2, arguments


class _Pickler(pickle.Pickler):
    def persistent_id(self, obj):
        if not isinstance(obj, _Storage):
            return None
        import torch

        storage_class = getattr(torch, STORAGE_CLASSES[obj.spec.dtype.name])
        num_elements = int(np.prod(obj.spec.shape, dtype=np.int64))
        return ("storage", storage_class, obj.key, "cpu", num_elements)


def _state_dict_pickle(tensors: Mapping[str, TensorSpec], storage_keys: Mapping[str, str]) -> bytes:
    buffer = io.BytesIO()
    # Protocol 2 is what torch.save writes and all that the weights-only unpickler reads.
    pickler = _Pickler(buffer, protocol=2)
    pickler.dump({name: _Tensor(storage_keys[name], spec) for name, spec in tensors.items()})
    return buffer.getvalue()
