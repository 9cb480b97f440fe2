"""Opens a `.pth` file as memory-mapped NumPy arrays, without running anything in it.

torch's weights-only unpickler allows tensors and plain containers and nothing else, and `mmap=True`
leaves the bytes in the page cache. Before it sees the file, the zip's directory is checked: a
cut-off file has none. After it, the sizes of the storages must be those of the records, because
under `mmap` torch trusts the pickle and would read on into the next record. Checksums are not
checked: that would read everything.
"""

import pickle
import warnings
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np

from llama_jax.errors import InputError


def read_pth(path: Path) -> dict[str, np.ndarray]:
    """Name -> read-only memory-mapped array (float32, float16, bfloat16 or float8_e4m3fn), as the
    file has them.

    Raises `InputError` if the file is not a whole zip of torch.save, or holds anything but a flat
    dict of float tensors.
    """
    torch = import_torch()
    record_sizes = _record_sizes(path)
    try:
        with warnings.catch_warnings():
            # Remarks on the pickle's dialect; what matters of it is checked below.
            warnings.simplefilter("ignore")
            state = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except OSError:
        raise
    except pickle.UnpicklingError:
        raise InputError(
            f"{path}: its pickle holds code or objects other than tensors and is not opened; "
            "re-save a plain state dict of tensors"
        ) from None
    except Exception as error:  # damaged bytes make the unpickler raise anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: damaged file ({reason}); download it again") from None
    if not isinstance(state, dict):
        raise InputError(f"{path}: must hold a dict of tensors, not {type(state).__name__}")
    for name, tensor in state.items():
        if not isinstance(name, str):
            raise InputError(f"{path}: must hold a dict of named tensors, but has a key {name!r}")
        if not isinstance(tensor, torch.Tensor) or tensor.layout is not torch.strided:
            raise InputError(f"{path}: entry {name} is not a plain tensor; re-save without it")
    storages = (tensor.untyped_storage() for tensor in state.values())
    sizes = {storage.data_ptr(): storage.nbytes() for storage in storages if storage.nbytes()}
    if sorted(sizes.values()) != record_sizes:
        raise InputError(f"{path}: damaged file (sizes of tensors and records differ)")
    return {name: _as_numpy(tensor, name, path) for name, tensor in state.items()}


def import_torch():
    """The torch module, which only this format needs."""
    try:
        import torch
    except ModuleNotFoundError:
        raise InputError("reading .pth files needs PyTorch: pip install '.[torch]'") from None
    return torch


def _record_sizes(path: Path) -> list[int]:
    """Sizes of the storages' records, sorted."""
    with open(path, "rb") as file:
        start = file.read(2)
    if start == b"\x80\x02":
        raise InputError(
            f"{path}: written by a PyTorch older than 1.6, cannot be memory-mapped; load it with "
            "torch.load and write it again with torch.save"
        )
    try:
        with zipfile.ZipFile(path) as archive:
            records = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError):
        raise InputError(f"{path}: not a whole .pth file (cut off?); download it again") from None
    names = {record.filename.partition("/")[2] for record in records}
    if "data.pkl" not in names or "constants.pkl" in names:
        raise InputError(f"{path}: not a state dict of torch.save (TorchScript?)")
    if any(record.compress_type != zipfile.ZIP_STORED for record in records):
        raise InputError(f"{path}: compressed, cannot be memory-mapped; write it with torch.save")
    return sorted(
        record.file_size
        for record in records
        if record.filename.partition("/")[2].startswith("data/") and record.file_size
    )


def _as_numpy(tensor, name: str, path: Path) -> np.ndarray:
    torch = import_torch()
    tensor = tensor.detach()
    if tensor.dtype == torch.bfloat16:
        # NumPy has no bfloat16 of its own, so the bits cross as integers.
        array = tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    elif tensor.dtype == torch.float8_e4m3fn:
        array = tensor.view(torch.int8).numpy().view(ml_dtypes.float8_e4m3fn)
    elif tensor.dtype in (torch.float32, torch.float16):
        array = tensor.numpy()
    else:
        raise InputError(
            f"{path}: {name} is {tensor.dtype}; need float32, float16, bfloat16 or float8_e4m3fn"
        )
    array.flags.writeable = False
    return array
