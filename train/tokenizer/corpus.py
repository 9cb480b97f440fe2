"""A corpus by language, as the command line has it: `de=web/de 'fr=fr/**/*.jsonl.zst'`."""

import re
from collections.abc import Sequence
from pathlib import Path

from llama_jax.errors import InputError
from train.data.corpus_files import CorpusFile, find_files

# Of inputs without a language.
NO_LANGUAGE = "text"
_NAMED = re.compile(r"([A-Za-z][\w-]{0,31})=(.+)", re.DOTALL)


def corpus_by_language(inputs: Sequence[str]) -> dict[str, list[CorpusFile]]:
    """Language -> its files, in the order in which they are named.

    Args:
      inputs: `LANGUAGE=WHERE`, or only where: a file, a folder or a pattern. A language may come
        several times. What exists under the whole name is a file, even with a "=" in its name.

    Raises `InputError` as `find_files` does, also if two languages have the same file.
    """
    places: dict[str, list[str]] = {}
    for given in inputs:
        language, where = named_input(given)
        places.setdefault(language or NO_LANGUAGE, []).append(where)
    files = find_files([where for group in places.values() for where in group])
    by_path = {file.path: file for file in files}
    return {
        language: [by_path[file.path] for file in find_files(group)]
        for language, group in places.items()
    }


def named_input(given: str) -> tuple[str, str]:
    """`NAME=WHERE` as two; the name is empty if there is none, or if a file is called so."""
    named = None if Path(given).exists() else _NAMED.fullmatch(given)
    return (named[1], named[2]) if named else ("", given)


def check_not_empty(language: str, num_characters: int, num_files: int) -> None:
    """Raises `InputError` if a language has no text."""
    if not num_characters:
        raise InputError(f"{language}: there is no text in its {num_files} files; leave it out")
