"""What Llama Guard answered: `safe`, or `unsafe` and a line of category codes.

Anything else counts as unsafe: an answer that was cut off, that names a category nobody asked
about, that says more than it was told to. Whoever reads `is_safe` alone is on the safe side.
"""

from dataclasses import dataclass

from llama_jax.safety.guard_policy import GuardPolicy

_SHOWN = 60


@dataclass(frozen=True)
class Verdict:
    """Attributes:
    is_safe: only for an answer that says so and nothing else, or that names nothing but
      excluded categories.
    categories: codes that were violated, in the order of the answer.
    excluded: codes that it named and that do not count.
    problem: what is wrong with the answer, in one line; None for a proper one.
    """

    is_safe: bool
    categories: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    problem: str | None = None


def parse_verdict(text: str, policy: GuardPolicy, *, is_whole: bool = True) -> Verdict:
    """Reads the model's answer; white space around it does not matter.

    Args:
      is_whole: whether the model ended it itself. Of one that was cut off, `S1` may have been `S10`
        and `safe` may have been `safely done`.
    """
    stripped = text.strip()
    if not is_whole:
        return Verdict(False, problem=f"the answer was cut off: {_shown(stripped)}")
    if stripped == "safe":
        return Verdict(True)
    first, *rest = stripped.split("\n")
    if first.rstrip() != "unsafe":
        return Verdict(False, problem=f"neither safe nor unsafe: {_shown(stripped)}")
    if not rest:
        return Verdict(False, problem="names no category")
    codes = tuple(dict.fromkeys(code.strip() for code in rest[0].split(",")))
    named = tuple(code for code in codes if code in policy.codes - policy.excluded)
    excluded = tuple(code for code in codes if code in policy.excluded)
    if len(rest) > 1:
        return Verdict(False, named, excluded, f"more than two lines: {_shown(stripped)}")
    if unknown := [code for code in codes if code not in policy.codes]:
        return Verdict(False, named, excluded, f"unknown category {_shown(unknown[0])}")
    return Verdict(not named, named, excluded)


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")
