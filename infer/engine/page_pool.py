"""Who has which page: allocation, sharing of prompts that begin alike, and eviction.

A page is free, in use by one row or more (counted), or kept: nobody uses it, but it holds the
beginning of a prompt that may come again. Kept pages are given away last, the longest unused first.

What a page holds is named by the page before it and its own tokens, so two pages have one name only
if all tokens up to their end agree: names are compared whole, nothing is trusted to a hash. (vLLM
names them by a chain of hashes; SGLang has a radix tree.)
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

# The name of a page: which page came before it (a serial number, 0 for none), and its tokens.
_Name = tuple[int, tuple[int, ...]]


@dataclass(frozen=True)
class _Kept:
    """A page that holds the beginning of a prompt."""

    name: _Name
    serial: int


class PagePool:
    """Pages 0 to `num_pages - 1`, and what is in them."""

    def __init__(self, num_pages: int, page_size: int):
        self.num_pages = num_pages
        self.page_size = page_size
        self._free = list(range(num_pages - 1, -1, -1))
        self._users = [0] * num_pages
        self._named: dict[_Name, int] = {}
        self._held: dict[int, _Kept] = {}  # every page with a name, in use or not
        self._unused: OrderedDict[int, None] = OrderedDict()  # named and in use by nobody
        self._next_serial = 1

    @property
    def num_available(self) -> int:
        """Pages that `allocate` could give."""
        return len(self._free) + len(self._unused)

    @property
    def num_used(self) -> int:
        """Pages that rows hold."""
        return self.num_pages - self.num_available

    @property
    def num_kept(self) -> int:
        """Pages that nobody uses and that hold the beginning of a prompt."""
        return len(self._unused)

    def allocate(self, count: int) -> list[int] | None:
        """`count` pages for one user, or None if there are not so many."""
        if count > self.num_available:
            return None
        pages = []
        for _ in range(count):
            page = self._free.pop() if self._free else self._evict()
            self._users[page] = 1
            pages.append(page)
        return pages

    def shared(self, tokens: Sequence[int]) -> list[int]:
        """The pages that hold `tokens` from the start on, as many as there are; only whole ones.

        They are not taken yet: see `take`.
        """
        pages: list[int] = []
        serial = 0
        for start in range(0, len(tokens) - self.page_size + 1, self.page_size):
            page = self._named.get((serial, tuple(tokens[start : start + self.page_size])))
            if page is None:
                break
            serial = self._held[page].serial
            pages.append(page)
        return pages

    def take(self, pages: Sequence[int]) -> None:
        """One more user for each of `pages`, which `shared` found."""
        for page in pages:
            self._unused.pop(page, None)
            self._users[page] += 1

    def name(self, pages: Sequence[int], tokens: Sequence[int], first: int) -> int:
        """Says what a row's pages hold, so that others may share them.

        Args:
          pages: of the row, in order.
          tokens: of the row, from its start; only whole pages of them are named.
          first: how many of the row's first pages have a name already.

        Returns:
          how many of its first pages have one now.
        """
        serial = self._held[pages[first - 1]].serial if first else 0
        for index in range(first, len(tokens) // self.page_size):
            start = index * self.page_size
            name = (serial, tuple(tokens[start : start + self.page_size]))
            other = self._named.get(name)
            if other is None:
                self._named[name] = pages[index]
                self._held[pages[index]] = _Kept(name, self._next_serial)
                self._next_serial += 1
            elif other != pages[index]:
                # Two rows computed the same tokens side by side: the later one's pages stay its
                # own, and those that follow in it get no name.
                return index
            serial = self._held[pages[index]].serial
        return max(first, len(tokens) // self.page_size)

    def release(self, pages: Sequence[int]) -> None:
        """One user less for each of `pages`. Later pages go first: of a prompt that is evicted bit
        by bit, the beginning is what others can still use."""
        for page in reversed(pages):
            self._users[page] -= 1
            if self._users[page]:
                continue
            if page in self._held:
                self._unused[page] = None
            else:
                self._free.append(page)

    def _evict(self) -> int:
        page, _ = self._unused.popitem(last=False)
        del self._named[self._held.pop(page).name]
        return page
