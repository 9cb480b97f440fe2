"""Stop strings in a text that comes in pieces of any size.

A piece may end in the middle of a stop string, so text that may begin one is held back. One state a
stop string says how much of it the text ends with, and the classic failure function (Knuth, Morris
and Pratt, 1977) moves it on character by character: each costs the same however long the strings
are, and what is found depends on the text alone, not on how it was cut into tokens. What is found
is the stop string that is complete first, and of several that end together the longest.
"""

from collections.abc import Sequence
from typing import NamedTuple


class FoundStop(NamedTuple):
    """A stop string in the text: `text[start:end] == string`, counted from the text's beginning."""

    string: str
    start: int
    end: int


class StopStrings:
    """Searches one growing text."""

    def __init__(self, strings: Sequence[str]) -> None:
        """Args: the stop strings, none of them empty."""
        # The longest first: of those that end together it is the one to find.
        self._strings = sorted(set(strings), key=lambda string: (-len(string), string))
        self._failures = [_failure_function(string) for string in self._strings]
        self._matched = [0] * len(self._strings)
        self._length = 0

    @property
    def num_held(self) -> int:
        """Characters at the end of the text that may begin a stop string."""
        return max(self._matched, default=0)

    def push(self, piece: str, *, may_stop: bool = True) -> FoundStop | None:
        """The first stop string that ends within `piece`; what follows it is not looked at.

        Args:
          may_stop: if not, one that ends in this piece is only text.
        """
        if not self._strings:
            return None
        for character in piece:
            self._length += 1
            found = self._step(character)
            if found is not None and may_stop:
                return FoundStop(found, self._length - len(found), self._length)
        return None

    def _step(self, character: str) -> str | None:
        """Moves every state on by one character; the longest string that it completes."""
        found = None
        for index, string in enumerate(self._strings):
            matched, failure = self._matched[index], self._failures[index]
            while matched and string[matched] != character:
                matched = failure[matched - 1]
            if string[matched] == character:
                matched += 1
            if matched == len(string):
                found = found or string
                # What of it may begin the next one.
                matched = failure[matched - 1]
            self._matched[index] = matched
        return found


def _failure_function(string: str) -> list[int]:
    """For each prefix, the length of its longest proper prefix that it ends with."""
    failure = [0] * len(string)
    length = 0
    for index in range(1, len(string)):
        while length and string[index] != string[length]:
            length = failure[length - 1]
        length += string[index] == string[length]
        failure[index] = length
    return failure
