"""What a reference policy says of pairs: computed once, stored beside the data, read with its rows.

    NAME/                                              prepared pairs
    NAME.reference_log_probs/MODEL/log_probs.float32   [rows, P, 2], little-endian
                                   reference.json      whose pairs, which model; written last

MODEL is the beginning of the model's hash, so several models can have theirs beside one data set.
Both hashes are in reference.json: of data that was prepared anew, or of another model, nothing is
taken. `reference_log_probs_writer.py` writes them, in blocks, and goes on after an interruption.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from llama_jax.errors import InputError
from llama_jax.json_file import read_json
from train.data.manifest import Manifest, read_manifest

VALUES_FILE = "log_probs.float32"
DESCRIPTION_FILE = "reference.json"
VALUE = np.dtype("<f4")


@dataclass(frozen=True)
class ReferenceDescription:
    """Attributes:
    data_sha256: `Manifest.data_hash` of the pairs.
    model_sha256: of the reference model, as whoever computes with it hashes it.
    num_rows, slots: of the data; the values are float32 [num_rows, slots, 2], chosen and rejected.
    """

    data_sha256: str
    model_sha256: str
    num_rows: int
    slots: int


def reference_folder(data: str | Path, model_sha256: str) -> Path:
    """Where the log-probabilities of a model of the pairs in `data` lie."""
    data = Path(data)
    return data.parent / f"{data.name}.reference_log_probs" / model_sha256[:16]


def describe_reference(data: str | Path, *, model_sha256: str) -> ReferenceDescription:
    """What log-probabilities of a model of the pairs in `data` must be.

    Raises `InputError` if `data` is no prepared pairs.
    """
    manifest = read_manifest(data)
    _check_is_pairs(manifest, data)
    return ReferenceDescription(
        manifest.data_hash(), model_sha256, manifest.num_rows, manifest.slots
    )


class ReferenceLogProbs:
    """The log-probabilities of a model of all pairs of a prepared folder, mapped into memory."""

    def __init__(self, data: str | Path, *, model_sha256: str) -> None:
        """Args:
          data: the folder of the pairs.
          model_sha256: of the reference model.

        Raises `InputError` if there are none, if they are of other data or of another model, or if
        the file has another size.
        """
        wanted = describe_reference(data, model_sha256=model_sha256)
        folder = reference_folder(data, model_sha256)
        path = folder / DESCRIPTION_FILE
        if not path.is_file():
            raise InputError(f"{data}: {_what_there_is(folder)}; compute them")
        check_description(path, wanted)
        values = folder / VALUES_FILE
        num_bytes = wanted.num_rows * wanted.slots * 2 * VALUE.itemsize
        if not values.is_file() or values.stat().st_size != num_bytes:
            raise InputError(
                f"{values}: must have {num_bytes} bytes; copy it again, or compute the reference "
                "log-probabilities again"
            )
        shape = (wanted.num_rows, wanted.slots, 2)
        self._values = np.memmap(values, VALUE, mode="r", shape=shape)

    def __len__(self) -> int:
        """Rows."""
        return len(self._values)

    def of_row(self, index: int, *, slots: int) -> np.ndarray:
        """Float32 [slots, 2] of row `index`, chosen and rejected; 0 where there is no pair."""
        values = np.zeros((slots, 2), np.float32)
        values[: self._values.shape[1]] = self._values[index]
        return values


def check_description(path: Path, wanted: ReferenceDescription) -> None:
    """Raises `InputError`, saying which, if the description at `path` is of other data or of
    another model than `wanted`."""
    fields = read_json(path)
    try:
        found = ReferenceDescription(**fields)
    except TypeError as error:
        raise InputError(f"{path}: damaged ({error}); remove its folder") from error
    if found.data_sha256 != wanted.data_sha256:
        raise InputError(
            f"{path}: is of other pairs ({str(found.data_sha256)[:12]}..., and the data beside it "
            f"is {wanted.data_sha256[:12]}...), which were prepared anew since; remove its folder "
            "and compute the reference log-probabilities again"
        )
    if found != wanted:
        differing = [
            f"{name} {str(value)[:12]}, not {str(getattr(wanted, name))[:12]}"
            for name, value in dataclasses.asdict(found).items()
            if value != getattr(wanted, name)
        ]
        raise InputError(f"{path}: has {', '.join(differing)}; remove its folder")


def _what_there_is(folder: Path) -> str:
    others = sorted(path.parent.name for path in folder.parent.glob(f"*/{DESCRIPTION_FILE}"))
    have = f"only of {', '.join(others)}" if others else "of no model"
    return f"has no reference log-probabilities of the model {folder.name}..., {have}"


def _check_is_pairs(manifest: Manifest, data: str | Path) -> None:
    if manifest.kind != "pairs":
        raise InputError(
            f"{data}: has rows of {manifest.kind}, and only pairs have reference "
            "log-probabilities; prepare it with: llama-jax data preferences --for dpo"
        )
