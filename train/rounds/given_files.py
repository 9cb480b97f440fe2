"""The files from outside that a step reads: what its command line names and the rounds have not
written.

Their content is noted when a step is done. Of folders, such as a checkpoint, nothing is: the
commands that read one have fingerprints of their own.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from llama_jax.errors import InputError


def given_files(command: Sequence[str], output: Path) -> dict[str, str]:
    """Path -> sha256 of each file outside the folder `output` that the words `command` name."""
    rounds = output.resolve()
    return {
        word: _sha256(Path(word))
        for word in command
        if Path(word).is_file() and not Path(word).resolve().is_relative_to(rounds)
    }


def check_given_files(steps: Mapping[str, Mapping[str, str]]) -> None:
    """Raises `InputError` that names the first step whose files are others now. One that is gone
    was of use and is needed no more, unless by a step to come, which will say so.

    Args:
      steps: place of a step that is done -> what `given_files` said when it began.
    """
    now: dict[str, str] = {}
    for place, files in steps.items():
        for name, sha256 in files.items():
            if name not in now and Path(name).is_file():
                now[name] = _sha256(Path(name))
            if now.get(name, sha256) != sha256:
                raise InputError(
                    f"{place}: {name} is not what it was when this step was done; put it back, or "
                    "name another OUTPUT"
                )


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
