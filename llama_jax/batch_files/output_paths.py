"""Whether what a command is to write can be written where it is named."""

from collections.abc import Iterable
from pathlib import Path

from llama_jax.errors import InputError


def check_outputs(
    outputs: Iterable[Path | None], inputs: Iterable[Path | None], *, overwrite: bool
) -> None:
    """Raises `InputError` if an output cannot be a file there, is an input or another output, or
    exists and `overwrite` does not say that it may be replaced. None is a file that was not asked
    for or not given."""
    read = {path.resolve() for path in inputs if path is not None}
    named: set[Path] = set()
    for path in outputs:
        if path is None:
            continue
        if path.is_dir() or not path.parent.is_dir():
            raise InputError(f"{path}: is a folder, or in none; name a file in a folder there is")
        if path.resolve() in read:
            raise InputError(f"{path}: is an input; name another file")
        if path.resolve() in named:
            raise InputError(f"{path}: is named for two outputs; name two files")
        if path.exists() and not overwrite:
            raise InputError(f"{path}: exists; name another file, or replace it with --overwrite")
        named.add(path.resolve())
