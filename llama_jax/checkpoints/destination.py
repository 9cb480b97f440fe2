"""Where a checkpoint may be written, and what may be deleted to make room for it.

Replacing a checkpoint deletes a folder, so every entry of that folder must be one that a sink
writes: a project with a `config.json` of its own is not a checkpoint.
"""

import os
from fnmatch import fnmatchcase
from pathlib import Path

from llama_jax.checkpoints.asset_files import (
    ASSET_PATTERNS,
    CHAT_TEMPLATES_FOLDER,
    GENERATION_FILE,
)
from llama_jax.checkpoints.orbax_layout import DESCRIPTION_FILE, WEIGHTS_FOLDER
from llama_jax.errors import InputError

_WRITTEN_FILES = (
    DESCRIPTION_FILE,
    GENERATION_FILE,
    "config.json",
    "model*.safetensors",
    "model.safetensors.index.json",
    "params.json",
    "consolidated.*.pth",
    *ASSET_PATTERNS,
)


def check_destination(destination: Path, *, replace: bool) -> None:
    """Raises `InputError` unless a checkpoint may be written to `destination`: it is absent, an
    empty folder, or, if `replace`, a folder of nothing but what a checkpoint has."""
    if not os.path.lexists(destination):
        return
    if destination.is_symlink():
        raise InputError(f"{destination}: is a link; give the path of the folder itself")
    if not destination.is_dir():
        raise InputError(f"{destination}: already exists; remove it or choose another place")
    if _is_within(Path.cwd(), destination):
        raise InputError(f"{destination}: is where you are; go elsewhere or choose another place")
    entries = sorted(destination.iterdir())
    if entries and not replace:
        raise InputError(f"{destination}: already exists; remove it or choose another place")
    for entry in entries:
        if not _is_of_a_checkpoint(entry):
            raise InputError(
                f"{entry}: is not part of a checkpoint and would be lost; move it away or choose "
                "another place"
            )


def check_apart(source: Path, destination: Path) -> None:
    """Raises `InputError` if `source` would be deleted with what lies at `destination`."""
    if _is_within(source, destination):
        raise InputError(
            f"{destination}: holds the source {source}, which would be lost; choose another place"
        )


def _is_within(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())


def _is_of_a_checkpoint(entry: Path) -> bool:
    """Whether a sink writes such an entry."""
    if entry.name == WEIGHTS_FOLDER:  # a name that others use too
        return entry.is_dir() and (entry.parent / DESCRIPTION_FILE).is_file()
    if entry.name == CHAT_TEMPLATES_FOLDER:
        return entry.is_dir() and all(
            path.is_file() and path.suffix == ".jinja" for path in entry.iterdir()
        )
    return entry.is_file() and any(fnmatchcase(entry.name, known) for known in _WRITTEN_FILES)
