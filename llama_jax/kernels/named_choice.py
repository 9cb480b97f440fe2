"""One implementation of several, by name.

One name is strict: what it cannot do is an error that says which names would take it. Of several
names the first that takes the case runs. The choice is made while tracing, and logged once.
"""

import functools
import logging
from collections.abc import Callable, Iterable

from llama_jax.errors import InputError

_log = logging.getLogger(__name__)


def known_names(what: str, names: str | Iterable[str], known: Iterable[str]) -> tuple[str, ...]:
    """`names`, one or several. Raises `InputError` if there is none, or one that is not known."""
    names = (names,) if isinstance(names, str) else tuple(names)
    if not names:
        raise InputError(f"{what}: give one or several of {', '.join(known)}")
    for name in names:
        if name not in known:
            raise InputError(f"{what} {name!r} is not one of {', '.join(known)}")
    return names


def choose_named(
    what: str,
    names: tuple[str, ...],
    known: Iterable[str],
    refusal: Callable[[str], str | None],
    case: str,
) -> str:
    """The first of `names` that takes the case.

    Args:
      what: is computed.
      known: all names there are.
      refusal: why a name cannot do it; None if it can.
      case: for the log, which has a line for each case that a name takes, with the reasons of the
        names before it.

    Raises:
      InputError: none of them takes it; with their reasons, and the names that would.
    """
    reasons = []
    for name in names:
        reason = refusal(name)
        if reason is None:
            report_choice(what, name, case, tuple(reasons))
            return name
        reasons.append(f"{name}: {reason}")
    takers = [name for name in known if refusal(name) is None]
    raise InputError(f"{what} {'; '.join(reasons)}. These take it: {', '.join(takers) or 'none'}")


@functools.cache
def report_choice(what: str, name: str, case: str, refused: tuple[str, ...]) -> None:
    """Says in the log what runs, the same only once."""
    note = f"; refused: {'; '.join(refused)}" if refused else ""
    _log.info("%s: %s (%s)%s", what, name, case, note)
