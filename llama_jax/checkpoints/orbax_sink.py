"""Writes our Orbax weights folder (`orbax.py` says what it is) a few tensors at a time.

An ordinary Orbax save copies the whole tree into anonymous memory, memory-mapped leaves too. So the
sink saves groups of tensors with Orbax's partial saving and finalizes once: that renames
`weights.partial_save` to `weights`, and `llama_jax.json` comes after it. A partial save costs 40 ms
and grows with the number before it, which is why small tensors are grouped.

Compression is off: random mantissas do not shrink, and zstd takes six times as long as a disk. With
OCDBT off and one chunk a tensor, a leaf is a plain file of its values.
"""

import errno
import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from llama_jax.checkpoints.asset_files import write_assets
from llama_jax.checkpoints.disk_errors import as_os_error
from llama_jax.checkpoints.interface import Assets, TensorSpec
from llama_jax.checkpoints.orbax_layout import (
    DESCRIPTION_FILE,
    FORMAT_VERSION,
    QUANTIZED_VERSION,
    WEIGHTS_FOLDER,
)
from llama_jax.checkpoints.planned_tensors import PlannedTensors
from llama_jax.config import ModelConfig
from llama_jax.json_file import write_json
from llama_jax.quantization.int4_packing import pack_int4
from llama_jax.quantization.quantized_tensor import WeightFormat

_GROUP_BYTES = 512 * 2**20
_log = logging.getLogger("absl")


class OrbaxSink:
    """Writes the folder described above.

    Memory: tensors wait until half a gigabyte is together, while Orbax writes its copy of the group
    before: a gigabyte, or twice the largest tensor.

    Args:
      path: the folder; created.
      config: the model.
      tensors: our name -> what is to be written, for every tensor of `config` and the scales of
        those that are quantised.
      assets: files to copy beside, and generation defaults.

    Raises `InputError` for a dtype that the format does not have.
    """

    def __init__(
        self,
        path: Path,
        config: ModelConfig,
        tensors: Mapping[str, TensorSpec],
        assets: Assets,
    ):
        self._path = Path(path).absolute()
        self._config = config
        self._planned = PlannedTensors(config, tensors, formats=WeightFormat)
        self._assets = assets
        self._group: dict[str, np.ndarray] = {}
        self._saving = None
        self._log_level = _log.level
        self._path.mkdir(parents=True, exist_ok=True)

    def write(self, name: str, tensor: np.ndarray) -> None:
        """Stores one whole tensor, in our layout and planned dtype; it must not change after."""
        self._planned.strike_off(name, tensor)
        if self._planned.specs[name].format is WeightFormat.INT4:
            tensor = pack_int4(tensor)
        if sum(held.nbytes for held in self._group.values()) + tensor.nbytes > _GROUP_BYTES:
            self._save_group()
        self._group[name] = tensor
        if tensor.nbytes > _GROUP_BYTES:
            self._save_group()

    def finish(self) -> None:
        """Makes the folder whole; `llama_jax.json` comes last."""
        self._planned.check_complete()
        self._save_group()
        self._wait()
        self._finalize()
        write_assets(self._path, self._assets)
        weights = self._path / WEIGHTS_FOLDER
        files = sorted(path for path in weights.rglob("*") if path.is_file())
        specs = self._planned.specs
        dtypes = {spec.dtype.name for spec in specs.values()}
        formats = {name: str(spec.format) for name, spec in specs.items() if spec.format}
        description = {
            "format_version": QUANTIZED_VERSION if formats else FORMAT_VERSION,
            "config": self._config.to_dict(),
            "dtype": dtypes.pop() if len(dtypes) == 1 else "mixed",
            **({"formats": formats} if formats else {}),
            "files": {path.relative_to(weights).as_posix(): path.stat().st_size for path in files},
        }
        write_json(self._path / DESCRIPTION_FILE, description)

    def _save_group(self) -> None:
        """Hands the group to Orbax, which copies it and writes while the next tensors are read."""
        from orbax.checkpoint.experimental import v1 as ocp

        self._wait()
        if self._group:
            needed = sum(tensor.nbytes for tensor in self._group.values())
            if shutil.disk_usage(self._path).free < needed:
                # Said before Orbax finds out with half its writes under way.
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            # Orbax logs an error from every thread that it passes; the user gets it once, below.
            self._log_level = _log.level
            _log.setLevel(logging.CRITICAL)
            with _orbax_context():
                self._saving = ocp.partial.save_async(self._path / WEIGHTS_FOLDER, self._group)
        self._group = {}

    def _wait(self) -> None:
        """Until the group before is written. System errors of tensorstore become `OSError`."""
        if self._saving is None:
            return
        saving, self._saving = self._saving, None
        try:
            saving.result()
        except ValueError as error:
            if (system_error := as_os_error(error)) is None:
                raise
            raise system_error from error
        finally:
            _log.setLevel(self._log_level)

    def _finalize(self) -> None:
        from orbax.checkpoint.experimental import v1 as ocp

        _log.setLevel(logging.ERROR)  # it warns that there is no OCDBT to merge
        try:
            with _orbax_context():
                ocp.partial.finalize(self._path / WEIGHTS_FOLDER)
        finally:
            _log.setLevel(self._log_level)


def _orbax_context():
    """How Orbax lays arrays out."""
    from orbax.checkpoint.experimental import v1 as ocp

    context = ocp.Context()
    saving = context.array.saving
    saving.use_ocdbt = False
    saving.use_zarr3 = True
    saving.use_compression = False
    saving.enable_write_sharding_file = False
    saving.array_metadata_store = None
    return context
