"""Reading a JSON object strictly: every field has a type and a range, and none is left over.

A field that is null counts as absent, as in OpenAI's interface.
"""

import difflib
import math
from collections.abc import Mapping
from typing import Any, NoReturn

from infer.protocol.request_error import RequestError

# Beyond it a JSON number is no count or id of anything, and need not fit a float.
_MAX_NUMBER = 2**63


class BodyFields:
    """The fields of one object, taken out one by one; `refuse_rest` ends the reading."""

    def __init__(self, body: Any, *, place: str = "") -> None:
        """
        Args:
          body: what should be a JSON object.
          place: of the object in the request, such as `stream_options`; empty for all of it.
        """
        self._place = place
        if not isinstance(body, Mapping) or not all(isinstance(name, str) for name in body):
            what = place or "the request's body"
            raise RequestError(f"{what}: must be a JSON object", param=place or None)
        self._rest = {name: value for name, value in body.items() if value is not None}
        self._nulls = {name for name, value in body.items() if value is None}
        self._known: list[str] = []

    def refuse(self, name: str, problem: str, *, code: str | None = None) -> NoReturn:
        """Raises the error of field `name`."""
        path = f"{self._place}.{name}" if self._place else name
        raise RequestError(f"{path}: {problem}", param=path, code=code)

    def take(self, name: str) -> Any:
        """The value of a field, None if it is absent."""
        self._known.append(name)
        self._nulls.discard(name)
        return self._rest.pop(name, None)

    def has(self, name: str) -> bool:
        """Whether a field not yet taken is there."""
        return name in self._rest

    def text(self, name: str) -> str | None:
        """A text that can be written as UTF-8."""
        value = self.take(name)
        if value is not None:
            self.check_text(name, value)
        return value

    def check_text(self, name: str, value: Any) -> None:
        if not isinstance(value, str):
            self.refuse(name, f"must be text, not {_described(value)}")
        try:
            value.encode()
        except UnicodeEncodeError:
            self.refuse(name, "holds half a surrogate pair, which is not Unicode text")

    def boolean(self, name: str, default: bool) -> bool:
        value = self.take(name)
        if value is not None and not isinstance(value, bool):
            self.refuse(name, f"must be true or false, not {_described(value)}")
        return default if value is None else value

    def integer(self, name: str, least: int, most: int | None = None) -> int | None:
        value = self.take(name)
        if value is not None:
            self.check_integer(name, value, least, most)
        return value

    def check_integer(self, name: str, value: Any, least: int, most: int | None) -> None:
        limits = f"from {least} to {most}" if most is not None else f"from {least}"
        most = _MAX_NUMBER if most is None else most
        if type(value) is not int or not least <= value <= most:
            self.refuse(name, f"must be a whole number {limits}, not {_described(value)}")

    def number(self, name: str) -> float | None:
        value = self.take(name)
        if value is not None:
            self.check_number(name, value)
        return value

    def check_number(self, name: str, value: Any) -> None:
        if type(value) not in (int, float) or not abs(value) < _MAX_NUMBER or math.isnan(value):
            self.refuse(name, f"must be a number, not {_described(value)}")

    def only(self, name: str, accepted: tuple[Any, ...], hint: str) -> None:
        """A field of which only values that ask for nothing are accepted."""
        value = self.take(name)
        if value is not None and not any(
            value == one and type(value) is type(one) for one in accepted
        ):
            self.refuse(name, f"{_described(value)} is not supported; {hint}")

    def refuse_rest(self, unsupported: Mapping[str, str] | None = None) -> None:
        """Raises for the first field that nobody took.

        Args:
          unsupported: fields that exist elsewhere -> what to do instead.
        """
        unsupported = unsupported or {}
        for name in [*self._rest, *sorted(self._nulls)]:
            if name in unsupported:
                # Null asks for nothing.
                if name in self._rest:
                    self.refuse(name, f"is not supported; {unsupported[name]}")
                continue
            near = difflib.get_close_matches(name, self._known, n=3, cutoff=0.6)
            hint = f"did you mean {' or '.join(near)}?" if near else "take it out"
            self.refuse(name[:100], f"unknown field; {hint}", code="unknown_parameter")


def _described(value: Any) -> str:
    """A value for an error message, cut to a length that fits one line."""
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, list):
        return "a list"
    if value is True or value is False:
        return "true" if value else "false"
    if isinstance(value, int) and abs(value) >= _MAX_NUMBER:
        return "a number so large"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
