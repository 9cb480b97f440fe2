"""What a job is, written beside its output before its first row and checked by every start."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llama_jax.errors import InputError
from llama_jax.json_file import read_json, write_json

FORMAT = 1


@dataclass(frozen=True)
class Manifest:
    """Everything that an answer depends on besides its row, and how the job ended.

    Attributes:
      input_sha256, input_bytes, rows: of the input.
      model: as it was named; not compared.
      fingerprint: of its files (`fingerprint.py`).
      options: of the command line, those that change answers or how rows are divided.
      version: of llama-jax.
      created: when the job was first started, seconds since 1970; not compared. Answers carry it.
      finished: counts of the whole job (`Totals`), once its output is in place.
    """

    input_sha256: str
    input_bytes: int
    rows: int
    model: str
    fingerprint: str
    options: dict[str, Any]
    version: str
    created: int
    finished: dict[str, int] | None = None
    format: int = FORMAT

    def check_same(self, wanted: "Manifest", place: Path) -> None:
        """Raises `InputError` that says what differs, if `wanted` is another job than this one."""
        difference = self.difference(wanted)
        if difference is not None:
            raise InputError(
                f"{place}: is of another job: {difference}; start with the same, or give another "
                "OUTPUT"
            )

    def difference(self, wanted: "Manifest") -> str | None:
        """In words, where `wanted` is another job; None if it is the same."""
        if self.input_sha256 != wanted.input_sha256:
            return (
                f"its input had {self.input_bytes:,} bytes and SHA-256 {self.input_sha256[:12]}, "
                f"this one has {wanted.input_bytes:,} and {wanted.input_sha256[:12]}"
            )
        if self.fingerprint != wanted.fingerprint:
            return f"its model was {self.model} with other files than {wanted.model} has now"
        for name in sorted(self.options.keys() | wanted.options.keys()):
            before, now = self.options.get(name), wanted.options.get(name)
            if before != now:
                return f"it has --{name.replace('_', '-')} {_said(before)}, not {_said(now)}"
        if self.version != wanted.version:
            return f"it is of llama-jax {self.version}, this is {wanted.version}"
        return None


def _said(value: Any) -> str:
    return "by default" if value is None else str(value)


def read_manifest(path: Path) -> Manifest | None:
    """The manifest at `path`, or None if there is none. Raises `InputError` if it is damaged or of
    another format."""
    if not path.exists():
        return None
    fields = read_json(path)
    names = {field.name for field in dataclasses.fields(Manifest)}
    if fields.keys() != names or fields["format"] != FORMAT:
        raise InputError(f"{path}: is no manifest of this version of batch; give another OUTPUT")
    return Manifest(**fields)


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Writes it so that it is either the old one or the new one, whole and on the disk."""
    write_json(path, dataclasses.asdict(manifest))
