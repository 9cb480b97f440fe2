"""Which categories a guard is asked about."""

import difflib
from dataclasses import dataclass

from llama_jax.errors import InputError
from llama_jax.safety.categories import LLAMA_GUARD_3, Category


@dataclass(frozen=True)
class GuardPolicy:
    """What is judged.

    Attributes:
      categories: all that a verdict may name.
      excluded: codes of those that the guard is not asked about, and that do not count if it names
        them all the same.
      with_descriptions: whether the prompt says what belongs to each category, under its name. The
        published prompt of Llama Guard 3 has names only.

    Raises `InputError` for an excluded code that no category has, for two categories of one code,
    and if nothing is left.
    """

    categories: tuple[Category, ...] = LLAMA_GUARD_3
    excluded: frozenset[str] = frozenset()
    with_descriptions: bool = False

    def __post_init__(self):
        codes = [category.code for category in self.categories]
        for code in codes:
            if codes.count(code) > 1:
                raise InputError(f"category {code}: is there twice; give each a code of its own")
        for code in sorted(self.excluded):
            if code not in codes:
                raise InputError(f"category {code!r}: is unknown; {self._near(code)}")
        if not self.asked:
            raise InputError("categories: all are excluded; leave at least one to be judged")

    @property
    def asked(self) -> tuple[Category, ...]:
        """The categories of the prompt."""
        return tuple(item for item in self.categories if item.code not in self.excluded)

    @property
    def codes(self) -> frozenset[str]:
        """Of all categories."""
        return frozenset(category.code for category in self.categories)

    def _near(self, code: str) -> str:
        """Which known ones may be meant, by code or by name."""
        names = {item.code.casefold(): item for item in self.categories}
        names |= {item.name.casefold(): item for item in self.categories}
        close = difflib.get_close_matches(code.casefold(), names, n=3, cutoff=0.5)
        items = dict.fromkeys(names[name] for name in close)
        if items:
            return f"did you mean {' or '.join(f'{item.code} ({item.name})' for item in items)}?"
        return f"known: {', '.join(item.code for item in self.categories)}"
