"""What a reference model says of rows: computed once, stored beside the data, read with its rows.

    NAME/                                              prepared rows
    NAME.reference_log_probs/MODEL/values.bin          a record for each row, little-endian
                                   reference.json      whose rows, which model, which arrays a
                                                       record has; written last

Of a reference policy of pairs a record is a number for each answer; of a teacher it is the most
probable words of each token and their log-probabilities. Which it is, the loss says
(`train/losses/loss.py`), and this is the same for all.

MODEL is the beginning of the model's hash, so several models can have theirs beside one data set.
Both hashes are in reference.json: of data that was prepared anew, or of another model, nothing is
taken. `reference_log_probs_writer.py` writes them, in blocks, and goes on after an interruption.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from llama_jax.errors import InputError
from llama_jax.json_file import read_json
from train.data.manifest import read_manifest

VALUES_FILE = "values.bin"
DESCRIPTION_FILE = "reference.json"


@dataclass(frozen=True)
class ReferenceDescription:
    """Attributes:
    data_sha256: `Manifest.data_hash` of the rows.
    model_sha256: of the reference model and of what else the values depend on, as whoever
      computes them hashes it.
    num_rows: of the data.
    arrays: name -> dtype and shape of what a record has.
    """

    data_sha256: str
    model_sha256: str
    num_rows: int
    arrays: dict[str, list[Any]]

    @property
    def record(self) -> np.dtype:
        """Of what is stored of one row. Raises `TypeError` or `ValueError` if there is none."""
        return np.dtype([(name, *array) for name, array in self.arrays.items()])


class ReferencedRow(NamedTuple):
    """A row, and what a reference model says of it.

    Attributes:
      row: as it was prepared.
      values: name -> array.
    """

    row: Any
    values: Mapping[str, np.ndarray]

    @property
    def tokens(self) -> np.ndarray:
        return self.row.tokens

    @property
    def segment_ids(self) -> np.ndarray:
        return self.row.segment_ids

    def arrays(self) -> dict[str, np.ndarray]:
        """Those of both."""
        return {**self.row.arrays(), **self.values}


def reference_folder(data: str | Path, model_sha256: str) -> Path:
    """Where what a model says of the rows in `data` lies."""
    data = Path(data)
    return data.parent / f"{data.name}.reference_log_probs" / model_sha256[:16]


def describe_reference(
    data: str | Path, *, model_sha256: str, arrays: Mapping[str, Any]
) -> ReferenceDescription:
    """What is to be stored of a model and the rows in `data`.

    Args:
      arrays: name -> what has the dtype and the shape of a row's array.

    Raises `InputError` if `data` is no prepared folder.
    """
    manifest = read_manifest(data)
    listed = {
        name: [np.dtype(array.dtype).newbyteorder("<").str, list(array.shape)]
        for name, array in arrays.items()
    }
    return ReferenceDescription(_data_hash(data), model_sha256, manifest.num_rows, listed)


class ReferenceLogProbs:
    """What a model says of all rows of a prepared folder, mapped into memory."""

    def __init__(self, data: str | Path, *, model_sha256: str) -> None:
        """Args:
          data: the folder of the rows.
          model_sha256: of the reference model.

        Raises `InputError` if there is nothing, if it is of other data or of another model, or if
        the file has another size.
        """
        folder = reference_folder(data, model_sha256)
        path = folder / DESCRIPTION_FILE
        if not path.is_file():
            raise InputError(f"{data}: {_what_there_is(folder)}; compute them")
        found = read_description(path)
        num_rows = read_manifest(data).num_rows
        same = ReferenceDescription(_data_hash(data), model_sha256, num_rows, found.arrays)
        check_description(path, found, same)
        values = folder / VALUES_FILE
        num_bytes = found.num_rows * found.record.itemsize
        if not values.is_file() or values.stat().st_size != num_bytes:
            raise InputError(
                f"{values}: must have {num_bytes} bytes; copy it again, or compute the reference "
                "log-probabilities again"
            )
        self._values = np.memmap(values, found.record, mode="r", shape=(found.num_rows,))

    def __len__(self) -> int:
        """Rows."""
        return len(self._values)

    def of_row(self, index: int) -> dict[str, np.ndarray]:
        """The arrays of row `index`."""
        record = self._values[index]
        return {name: np.array(record[name]) for name in record.dtype.names}


def read_description(path: Path) -> ReferenceDescription:
    """Raises `InputError` if the description at `path` is damaged."""
    fields = read_json(path)
    try:
        found = ReferenceDescription(**fields)
        sound = not found.record.hasobject and found.num_rows > 0
    except (AttributeError, TypeError, ValueError) as error:
        raise InputError(f"{path}: damaged ({error}); remove its folder") from error
    if not sound:
        raise InputError(f"{path}: damaged (its numbers contradict); remove its folder")
    return found


def check_description(
    path: Path, found: ReferenceDescription, wanted: ReferenceDescription
) -> None:
    """Raises `InputError`, saying which, if the description `found` at `path` is of other data or
    of another model than `wanted`."""
    if found.data_sha256 != wanted.data_sha256:
        raise InputError(
            f"{path}: is of other rows ({str(found.data_sha256)[:12]}..., and the data beside it "
            f"is {wanted.data_sha256[:12]}...), which were prepared anew since; remove its folder "
            "and compute the reference log-probabilities again"
        )
    if found != wanted:
        differing = [
            f"{name} {_short(value)}, not {_short(getattr(wanted, name))}"
            for name, value in dataclasses.asdict(found).items()
            if value != getattr(wanted, name)
        ]
        raise InputError(f"{path}: has {', '.join(differing)}; remove its folder")


def _short(value: Any) -> str:
    return value[:12] if isinstance(value, str) else str(value)


def _data_hash(data: str | Path) -> str:
    try:
        return read_manifest(data).data_hash()
    except ValueError as error:
        raise InputError(f"{data}: {error}") from error


def _what_there_is(folder: Path) -> str:
    others = sorted(path.parent.name for path in folder.parent.glob(f"*/{DESCRIPTION_FILE}"))
    have = f"only of {', '.join(others)}" if others else "of no model"
    return f"has no reference log-probabilities of the model {folder.name}..., {have}"
