"""A file of verdicts, as `llama-jax guard` writes it, by the names of its rows.

{"custom_id": "a", "verdict": "unsafe", "categories": ["S1"], "score": 0.98, "usage": {...}}
"""

from pathlib import Path

from llama_jax.batch_files.json_lines import json_lines
from llama_jax.errors import InputError


class Verdicts:
    """Which rows were judged unsafe.

    Raises `InputError` for a line that is no verdict, and for a row that was judged twice.
    """

    def __init__(self, path: Path):
        self.path = path
        self._unsafe: dict[str, bool] = {}
        for number, fields, _ in json_lines(path):
            custom_id, verdict = fields.get("custom_id"), fields.get("verdict")
            if not isinstance(custom_id, str) or verdict not in ("safe", "unsafe"):
                raise InputError(
                    f"{path}: line {number}: must have a custom_id and a verdict, safe or unsafe"
                )
            if custom_id in self._unsafe:
                raise InputError(f"{path}: line {number}: {custom_id!r} was judged before")
            self._unsafe[custom_id] = verdict == "unsafe"

    def is_unsafe(self, custom_id: str) -> bool:
        """Of the row with this name. Raises `InputError` if it was not judged."""
        try:
            return self._unsafe[custom_id]
        except KeyError:
            raise InputError(
                f"{self.path}: has no verdict of {custom_id!r}; judge the same rows"
            ) from None
