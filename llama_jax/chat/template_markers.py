"""Whose special token is it? Telling the template's own from those written in a message.

A chat template gives back one string in which `<|im_end|>` may be the template's, and ends a
message, or a user's, and must stay text. Here the template's own are marked: in the template's
syntax tree (and in variables such as `bos_token`) every special token is replaced by one private
character that occurs in no message. Whatever the template does, only those characters become ids,
and messages reach it untouched, so that trimming, slicing and measuring them works as ever.
(Marking the messages instead fails open: a template that slices one can cut the mark off.)

Two things a template may do with special tokens do not survive marking, and are found out:

- look for one in a message: constants that are only compared or searched for, such as
  `'</think>' in content` or `content.split('</think>')`, keep their text;
- build one from parts, such as `'<|' + role + '|>'`: `template_dialog.py` refuses it.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from jinja2 import nodes

from llama_jax.errors import InputError

# Plane 16 is private use to its end (U+10FFFD); fonts put their icons in plane 15 and the BMP.
_FIRST_PRIVATE, _LAST_PRIVATE = 0x100000, 0x10FFFD

_SEARCHING_METHODS = {
    "count", "endswith", "find", "index", "lstrip", "partition", "removeprefix", "removesuffix",
    "replace", "rfind", "rindex", "rpartition", "rsplit", "rstrip", "split", "startswith", "strip",
}  # fmt: skip
_SEARCHING_FILTERS = {"reject", "rejectattr", "replace", "select", "selectattr", "trim"}


@dataclass(frozen=True)
class Piece:
    """A stretch of a rendered dialog.

    Attributes:
      start, end: its characters in the text.
      token: the id, if it is a special token of the template.
    """

    start: int
    end: int
    token: int | None


@dataclass(frozen=True)
class Rendering:
    """A rendered dialog with the template's special tokens told apart.

    Attributes:
      text: what the template writes, special tokens as their text.
      pieces: cover `text`; never two texts in a row.
      generated: the characters (start, end) inside each `{% generation %}`.
    """

    text: str
    pieces: tuple[Piece, ...]
    generated: tuple[tuple[int, int], ...]


class Markers:
    """One private character for each special token, and two around `{% generation %}`."""

    def __init__(self, special_tokens: Mapping[str, int], first: int):
        """
        Args:
          special_tokens: text -> id.
          first: the first of the `size(special_tokens)` private characters.
        """
        self._texts = sorted((text for text in special_tokens if text), key=len, reverse=True)
        self._special_tokens = special_tokens
        self._characters = {text: chr(first + index) for index, text in enumerate(self._texts)}
        self._text_of = {character: text for text, character in self._characters.items()}
        begin = first + len(self._texts)
        self.generation = (chr(begin), chr(begin + 1))
        self._special_text = re.compile("|".join(map(re.escape, self._texts)) or "(?!)")

    @staticmethod
    def size(special_tokens: Mapping[str, int]) -> int:
        """How many characters are needed."""
        return len(special_tokens) + 2

    def mark(self, text: str) -> str:
        """`text` with its special tokens replaced by their characters."""
        return self._special_text.sub(lambda match: self._characters[match[0]], text)

    def mark_tree(self, node: nodes.Node) -> None:
        """Marks every constant below `node` that can become output."""
        if isinstance(node, nodes.TemplateData):
            node.data = self.mark(node.data)
        elif isinstance(node, nodes.Const) and isinstance(node.value, str):
            node.value = self.mark(node.value)
        for child in _written_children(node):
            self.mark_tree(child)

    def read(self, marked: str, *, place: str) -> Rendering:
        """The rendering behind a marked text; `place` is the template's, for errors.

        Raises:
          InputError: a generation block is cut in two.
        """
        texts, pieces, generated = [], [], []
        length, begun = 0, None
        marks = "".join(map(re.escape, (*self._text_of, *self.generation)))
        for part in re.split(f"([{marks}])", marked):
            if part == self.generation[0] and begun is None:
                begun = length
            elif part == self.generation[1] and begun is not None:
                generated.append((begun, length))
                begun = None
            elif part in self.generation:
                raise InputError(f"{place}: {{% generation %}} blocks are nested or cut in two")
            elif part:
                text = self._text_of.get(part, part)
                token = self._special_tokens[text] if part in self._text_of else None
                if token is None and pieces and pieces[-1].token is None:
                    pieces[-1] = Piece(pieces[-1].start, length + len(text), None)
                else:
                    pieces.append(Piece(length, length + len(text), token))
                texts.append(text)
                length += len(text)
        if begun is not None:
            raise InputError(f"{place}: {{% generation %}} blocks are nested or cut in two")
        return Rendering("".join(texts), tuple(pieces), tuple(generated))

    def special_texts_in(self, texts: Iterable[str]) -> set[str]:
        """The special tokens written in `texts`."""
        return {special for text in texts for special in self._special_text.findall(text)}


def first_free_character(values: Any, size: int) -> int:
    """The first of `size` private characters in a row of which none occurs in any text of
    `values` (nested lists and dicts).

    Raises:
      InputError: there are no such.
    """
    used = {ord(character) for character in set().union(*texts_of(values))}
    first = _FIRST_PRIVATE
    while first + size - 1 <= _LAST_PRIVATE:
        taken = [code for code in range(first, first + size) if code in used]
        if not taken:
            return first
        first = taken[-1] + 1
    raise InputError("messages: use too many characters of Unicode's private plane 16")


def texts_of(value: Any) -> Iterator[str]:
    """Every text in nested lists and dicts, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from texts_of(key)
            yield from texts_of(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from texts_of(item)


def _written_children(node: nodes.Node) -> Iterator[nodes.Node]:
    """The children of `node` whose value can reach the output, rather than only be compared."""
    if isinstance(node, nodes.Compare | nodes.Test):
        return
    if isinstance(node, nodes.Getitem):
        yield node.node
    elif isinstance(node, nodes.Pair):
        yield node.value
    elif isinstance(node, nodes.Filter) and node.name in _SEARCHING_FILTERS:
        if node.node is not None:
            yield node.node
        # The second argument of `replace` is what is written.
        yield from node.args[1:] if node.name == "replace" else ()
    elif (
        isinstance(node, nodes.Call)
        and isinstance(node.node, nodes.Getattr)
        and node.node.attr in _SEARCHING_METHODS
    ):
        yield node.node
        yield from node.args[1:] if node.node.attr == "replace" else ()
    else:
        yield from node.iter_child_nodes()
