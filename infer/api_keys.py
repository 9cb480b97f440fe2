"""Where keys of an API come from: a file and the environment. A server takes any of them, a client
sends one."""

from collections.abc import Mapping
from pathlib import Path

from llama_jax.errors import InputError

ENVIRONMENT_VARIABLE = "LLAMA_JAX_API_KEY"


def read_api_keys(path: Path | None, environment: Mapping[str, str]) -> tuple[str, ...]:
    """The keys of a file, one a line (a line that begins with # is a comment), and the one of
    `LLAMA_JAX_API_KEY`. None of either: no keys, and the server is open.

    Raises:
      InputError: a key that no header can carry, or a source that was given and holds no key:
        the server would be open where someone meant to close it.
    """
    keys = []
    if path is not None:
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError:
            raise InputError(f"{path}: not UTF-8 text; write one key a line") from None
        lines = [line.strip() for line in lines]
        found = [line for line in lines if line and not line.startswith("#")]
        if not found:
            raise InputError(f"{path}: holds no key; write one a line")
        keys += [_checked(key, str(path)) for key in found]
    if ENVIRONMENT_VARIABLE in environment:
        keys.append(_checked(environment[ENVIRONMENT_VARIABLE], ENVIRONMENT_VARIABLE))
    return tuple(keys)


def _checked(key: str, place: str) -> str:
    if not key or not all(33 <= ord(character) <= 126 for character in key):
        raise InputError(f"{place}: a key must be visible ASCII characters without a space")
    return key
