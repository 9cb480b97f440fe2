"""JSON objects: from untrusted files, with every failure as one line; and into files."""

import json
from pathlib import Path
from typing import Any

from llama_jax.errors import InputError
from llama_jax.whole_file import write_lines

_MAX_BYTES = 200_000_000  # a large tokenizer.json has 20 MB


def read_json(path: Path) -> dict[str, Any]:
    """The object in `path`. Raises `InputError` if it is missing or is no JSON object."""
    if not path.is_file():
        raise InputError(f"{path}: there is no such file; a complete checkpoint has one")
    if path.stat().st_size > _MAX_BYTES:
        raise InputError(f"{path}: too large for what it should be; fetch it again")
    return parse_json(path.read_bytes(), path)


def parse_json(text: bytes, where) -> dict[str, Any]:
    """The object in `text`, UTF-8. Raises `InputError` for anything else and for a key given twice,
    of which `json` would quietly keep the last. `where` is named in errors."""

    def unique(pairs):
        fields = dict(pairs)
        if len(fields) != len(pairs):
            raise ValueError("a key is given twice")
        return fields

    try:
        fields = json.loads(text.decode(), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not valid JSON ({error})") from error
    if not isinstance(fields, dict):
        raise InputError(f"{where}: must be a JSON object")
    return fields


def is_unicode(text: str) -> bool:
    """Whether `text` can be written as UTF-8: JSON's escapes can spell half a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def write_json(path: Path, fields: dict[str, Any]) -> None:
    """Writes an object to `path`, indented, as a whole file."""
    write_lines(path, [json.dumps(fields, indent=2)])
