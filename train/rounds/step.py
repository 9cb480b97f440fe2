"""One step of post-training: a command line, as a user would type it."""

import os
import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from llama_jax.errors import InputError

_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*")


@dataclass(frozen=True)
class Step:
    """A command line and what it leaves behind.

    A step that was killed is started again with the same words, so they must be those of a command
    that goes on or starts over: whatever has an option `--overwrite` must be given it.

    Attributes:
      name: unique in its round: small letters, digits, `_`, `.` and `-`.
      command: its words, from `llama-jax` on, or `python -m MODULE`. Numbers and paths may stand
        among them.
      outputs: files and folders that are there when it is done. Where the command names one, the
        folder it is in is made before; what else there is, such as the `weights` of a training, the
        command finds a place for.
      results: of `outputs`, a file that `llama-jax evaluate` or `llama-jax refusals` has written;
        its numbers are shown when the rounds are through.
      accepts: the exit codes it may end with. `batch` ends with 1 if some rows failed, which is no
        reason to stop where the rest suffices.
    """

    name: str
    command: tuple[str, ...]
    outputs: tuple[str, ...] = ()
    results: str | None = None
    accepts: tuple[int, ...] = (0,)

    def __post_init__(self):
        """Raises `InputError` for what cannot be run."""
        object.__setattr__(self, "command", tuple(map(str, self.command)))
        object.__setattr__(self, "outputs", tuple(map(str, self.outputs)))
        if not _NAME.fullmatch(self.name):
            raise InputError(
                f"step {self.name!r}: must be named with small letters, digits, '_', '.' and '-'"
            )
        is_module = self.command[:2] == ("python", "-m")
        if len(self.command) < 2 or not (self.command[0] == "llama-jax" or is_module):
            raise InputError(
                f"step {self.name}: its command must begin with llama-jax or python -m, not "
                f"{shlex.join(self.command[:2])!r}"
            )
        if self.results is not None and self.results not in self.outputs:
            raise InputError(f"step {self.name}: results {self.results} is none of its outputs")

    @property
    def program(self) -> str:
        """What runs: a command of llama-jax, without its second word, or a module."""
        return self.command[2] if self.command[0] == "python" else self.command[1]

    @property
    def folders(self) -> list[str]:
        """That must be there before it starts."""
        named = [path for path in self.outputs if path in self.command]
        return list(filter(None, dict.fromkeys(map(os.path.dirname, named))))

    def line(self, prefix: Sequence[str] = ()) -> str:
        """As it is typed into a shell."""
        return shlex.join([*prefix, *self.command])

    def words(self, prefix: Sequence[str] = ()) -> list[str]:
        """What the operating system is given: this Python, whatever `PATH` says."""
        rest = self.command[1:]
        if self.command[0] == "llama-jax":
            rest = ("-m", "llama_jax", *rest)
        return [*prefix, sys.executable, *rest]
