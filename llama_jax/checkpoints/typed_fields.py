"""Reads numbers out of a foreign config and says which key of which file is wrong.

Config files come from other programs: a string where a size should be, an infinite epsilon or a
missing key must end as one line naming the file and the key, not as a `TypeError` far away.
"""

from collections.abc import Callable, Mapping
from typing import Any

from llama_jax.errors import InputError

_REQUIRED = object()


class TypedFields:
    """Fields of one file, read by key and type. A null counts as an absent key.

    Every method raises `InputError` for an absent key without `default` and for another type.
    """

    def __init__(self, fields: Mapping[str, Any], file):
        self.fields = {key: value for key, value in fields.items() if value is not None}
        self.file = file

    def integer(self, key: str, default: Any = _REQUIRED) -> int:
        def is_integer(value):
            return type(value) is int and abs(value) < 2**63

        return self._read(key, default, is_integer, "an integer")

    def number(self, key: str, default: Any = _REQUIRED) -> float:
        def is_finite(value):
            return type(value) in (int, float) and abs(value) < 3e38  # a float32, not NaN

        return float(self._read(key, default, is_finite, "a finite number"))

    def boolean(self, key: str, default: Any = _REQUIRED) -> bool:
        return self._read(key, default, lambda value: type(value) is bool, "true or false")

    def _read(self, key, default, is_right, wanted):
        value = self.fields.get(key, default)
        if value is _REQUIRED:
            raise InputError(f"{self.file}: {key} is missing; it must be {wanted}")
        if key in self.fields and not is_right(value):
            raise InputError(f"{self.file}: {key} must be {wanted}, not {str(value)[:80]!r}")
        return value


def make_from_file(kind: Callable[..., Any], file, **numbers: Any) -> Any:
    """`kind(**numbers)`. What it says of them in an `InputError` gets the name of `file`."""
    try:
        return kind(**numbers)
    except InputError as error:
        raise InputError(f"{file}: {error}") from error
