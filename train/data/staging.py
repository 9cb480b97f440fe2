"""Where a data set is made: a hidden folder beside the output, which becomes the output when whole.

    .NAME.preparing/arguments.json   what was asked for; other arguments may not go on with the work
                    lock             held while a process works here
                    units/           the corpus as tokens
                    data/            the shards, then the manifest; renamed to the output

Whatever is here under its final name is whole (`llama_jax/whole_file.py`), so that work that was
interrupted at any moment goes on with what is finished.
"""

import fcntl
import json
import os
import shutil
from pathlib import Path
from typing import Any

from llama_jax.errors import InputError
from llama_jax.whole_file import whole_file
from train.data.manifest import MANIFEST_FILE, Manifest
from train.data.shard_writer import is_shard_name, write_manifest
from train.output_folder import check_output_folder

_ARGUMENTS = "arguments.json"


class Staging:
    """A context in which this process alone works on an output.

    Attributes:
      units, data: the two folders.
    """

    def __init__(self, output: Path, arguments: dict[str, Any], *, overwrite: bool) -> None:
        """Args:
        output: the folder to make.
        arguments: a JSON object of all that the result depends on.
        overwrite: discard unfinished work of other arguments, and replace the output at the end.
        """
        self._output, self._overwrite = output, overwrite
        self._arguments = json.loads(json.dumps(arguments))
        self._folder = staging_folder(output)
        self.units, self.data = self._folder / "units", self._folder / "data"

    def __enter__(self) -> "Staging":
        """Raises `InputError` if the output is there, or unfinished work of other arguments, or a
        process that works on it."""
        self._check_output()
        self._folder.mkdir(parents=True, exist_ok=True)
        self._lock = open(self._folder / "lock", "w")
        try:
            self._take_lock()
            self._check_arguments()
        except BaseException:
            self._lock.close()
            raise
        self.units.mkdir(exist_ok=True)
        self.data.mkdir(exist_ok=True)
        return self

    def __exit__(self, *exception: object) -> None:
        self._lock.close()

    def publish(self, manifest: Manifest) -> None:
        """Makes `data` the output, with its manifest, and removes everything else."""
        for leftover in self.data.glob("*.tmp"):  # of a worker that was killed
            leftover.unlink()
        write_manifest(self.data, manifest)
        if self._output.exists():
            self._check_output()
            os.rename(self._output, self._folder / "replaced")
        os.rename(self.data, self._output)
        self.discard()

    def discard(self) -> None:
        """Removes all unfinished work."""
        _discard(self._folder)

    def _check_output(self) -> None:
        check_output_folder(self._output)
        if not self._output.exists():
            return
        if not any(self._output.iterdir()):
            return
        if not (self._output / MANIFEST_FILE).is_file():
            raise InputError(
                f"--output {self._output}: holds something that is no prepared data; name another "
                "folder"
            )
        if not self._overwrite:
            raise InputError(
                f"--output {self._output}: holds data prepared with other arguments or of other "
                "files; name another folder, or replace it with --overwrite"
            )
        for file in self._output.iterdir():
            if file.name != MANIFEST_FILE and not is_shard_name(file.name):
                raise InputError(
                    f"--output {self._output}: holds {file.name}, which is no part of the data and "
                    "would be lost; move it away, or name another folder"
                )

    def _take_lock(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"--output {self._output}: another process is preparing it now; wait for its end, "
                "or name another folder"
            ) from None

    def _check_arguments(self) -> None:
        path = self._folder / _ARGUMENTS
        earlier = json.loads(path.read_text()) if path.is_file() else None
        if earlier == self._arguments:
            return
        if earlier is not None and not self._overwrite:
            names = [key for key in self._arguments if earlier.get(key) != self._arguments[key]]
            raise InputError(
                f"--output {self._output}: work on it was begun with other arguments "
                f"({', '.join(names)}) and is not finished; give the same ones to go on with it, "
                "or discard it with --overwrite"
            )
        shutil.rmtree(self.units, ignore_errors=True)
        shutil.rmtree(self.data, ignore_errors=True)
        with whole_file(path) as file:
            file.write(json.dumps(self._arguments, indent=1).encode())


def staging_folder(output: Path) -> Path:
    """Where `output` is made."""
    return output.parent / f".{output.name}.preparing"


def discard_leftover(output: Path) -> None:
    """Removes the staging folder of an output that is there, if it was interrupted while it was
    removed."""
    folder = staging_folder(output)
    if folder.is_dir() and not (folder / "data").is_dir():
        _discard(folder)


def _discard(folder: Path) -> None:
    """The arguments go first, so that what is left after an interruption is not taken for work to
    go on with."""
    (folder / _ARGUMENTS).unlink(missing_ok=True)
    shutil.rmtree(folder)
