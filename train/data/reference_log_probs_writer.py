"""Writing what a reference model says of rows, in blocks of rows, each of which is kept.

    NAME.reference_log_probs/MODEL/blocks/reference.json      what is computed, and rows a block
                                          block-000003.bin

A block is there whole or not at all; a run that was killed computes the missing ones. One process
writes a block; several may write different ones.
"""

import dataclasses
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from llama_jax.errors import InputError
from llama_jax.json_file import read_json
from llama_jax.whole_file import whole_file
from train.data.reference_log_probs import (
    DESCRIPTION_FILE,
    VALUES_FILE,
    check_description,
    describe_reference,
    read_description,
    reference_folder,
)


class RowBlock(NamedTuple):
    """Rows from `first` to before `stop`."""

    number: int
    first: int
    stop: int


class ReferenceLogProbsWriter:
    """Takes the blocks that are missing, in any order, then publishes all of them.

    Attributes:
      is_finished: the values are there already; nothing is to be done.
    """

    def __init__(
        self,
        data: str | Path,
        *,
        model_sha256: str,
        arrays: Mapping[str, Any],
        block_rows: int,
    ) -> None:
        """Args:
          data: the folder of the rows.
          model_sha256: of the reference model.
          arrays: name -> what has the dtype and the shape of a row's array.
          block_rows: rows that are computed and kept together.

        Raises `InputError` if `data` is no prepared folder, or if what was begun there is of other
        data or has other blocks.
        """
        if block_rows < 1:
            raise InputError(f"block_rows must be at least 1, not {block_rows}")
        self._wanted = describe_reference(data, model_sha256=model_sha256, arrays=arrays)
        self._folder = reference_folder(data, model_sha256)
        self._blocks = self._folder / "blocks"
        self._block_rows = block_rows
        path = self._folder / DESCRIPTION_FILE
        self.is_finished = path.is_file()
        if self.is_finished:
            check_description(path, read_description(path), self._wanted)
            shutil.rmtree(self._blocks, ignore_errors=True)  # interrupted while they were removed
        else:
            self._begin()

    def missing(self) -> Iterator[RowBlock]:
        """The blocks that are not there yet, in order."""
        if self.is_finished:
            return
        for block in self._all():
            if not self._path(block).is_file():
                yield block

    def write(self, block: RowBlock, values: Mapping[str, np.ndarray]) -> None:
        """Keeps a block.

        Args:
          values: the arrays of its rows, stacked: `[stop - first, ...]` each.

        Raises `InputError`, naming the row and the place in it, for a value that is not finite: the
        model is broken, or computes in a dtype in which it overflows.
        """
        records = np.zeros(block.stop - block.first, self._wanted.record)
        for name in records.dtype.names:
            array = values[name]
            if array.shape != records[name].shape:
                raise ValueError(
                    f"{name} of shape {array.shape} where {records[name].shape} must be"
                )
            for row, *place in np.argwhere(~np.isfinite(array))[:1]:
                raise InputError(
                    f"{self._folder}: {name} {[int(i) for i in place]} of row {block.first + row} "
                    f"is {array[row, *place]}; check the reference model and its compute dtype"
                )
            records[name] = array
        self._put(self._path(block), records.tobytes())

    def publish(self) -> None:
        """Joins the blocks. All of them must be there."""
        if self.is_finished:
            return
        with whole_file(self._folder / VALUES_FILE) as file:
            for block in self._all():
                file.write(self._path(block).read_bytes())
        description = json.dumps(dataclasses.asdict(self._wanted), indent=2) + "\n"
        self._put(self._folder / DESCRIPTION_FILE, description.encode())
        shutil.rmtree(self._blocks)
        self.is_finished = True

    def _begin(self) -> None:
        """Makes the folder of the blocks, or checks that it is of the same work."""
        path = self._blocks / DESCRIPTION_FILE
        wanted = {**dataclasses.asdict(self._wanted), "block_rows": self._block_rows}
        if path.is_file():
            found = read_json(path)
            if found != wanted:
                names = [name for name in wanted if found.get(name) != wanted[name]]
                raise InputError(
                    f"{path}: work was begun with other {', '.join(names)} and is not finished; "
                    f"give the same ones to go on with it, or remove {self._blocks}"
                )
            return
        self._blocks.mkdir(parents=True, exist_ok=True)
        self._put(path, (json.dumps(wanted, indent=2) + "\n").encode())

    def _all(self) -> Iterator[RowBlock]:
        num_rows = self._wanted.num_rows
        for number, first in enumerate(range(0, num_rows, self._block_rows)):
            yield RowBlock(number, first, min(first + self._block_rows, num_rows))

    def _path(self, block: RowBlock) -> Path:
        return self._blocks / f"block-{block.number:06d}.bin"

    def _put(self, path: Path, content: bytes) -> None:
        with whole_file(path) as file:
            file.write(content)
