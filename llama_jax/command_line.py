"""A function's typed arguments as a command line (tyro), every mistake as one line."""

import contextlib
import difflib
import functools
import inspect
import io
import re
from collections.abc import Callable, Sequence
from typing import Any

from llama_jax.errors import InputError

# Of tyro's complaints: a value, the option and the values that it takes; one option that there is
# not, perhaps with its values, and what comes near it, with its help.
_WRONG_CHOICE = re.compile(r"invalid choice (.+) for argument '(\S+)'\. Expected one of \((.+?)\)")
_MISSPELT = re.compile(
    r"Unrecognized options: (--[^\s,]+)(?:, [^-\s]\S*)* Perhaps you meant: (--.*)"
)


def bind_arguments(
    function: Callable, *, prog: str, arguments: Sequence[str], markers: Sequence[Any] = ()
) -> Callable[[], int | None]:
    """`function` with its arguments bound from `arguments`. tyro would take a ValueError of a
    function that it calls for a mistake in the arguments, so it only ever calls the binder.

    Args:
      prog: what the user typed before them.
      markers: of `tyro.conf`, for all arguments.

    Raises `InputError` for a mistake, `SystemExit` after `--help`.
    """
    import tyro

    @functools.wraps(function)
    def bind(*args, **kwargs):
        return functools.partial(function, *args, **kwargs)

    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(
                bind,
                prog=prog,
                description=(inspect.getdoc(function) or "").split("\nArgs:")[0],
                args=list(arguments),
                config=tuple(markers),
            )
    except SystemExit as stop:
        if stop.code in (None, 0):
            raise
        raise InputError(_one_line(complaint.getvalue())) from None


def parses_itself(function: Callable) -> bool:
    """Whether `function` takes `*arguments`: what it accepts depends on what the first names."""
    parameters = inspect.signature(function).parameters.values()
    return any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters)


def _one_line(box: str) -> str:
    """tyro's framed complaint, a title and some lines, as one line without the title."""
    lines = [re.sub(r"\x1b\[[0-9;]*m|[╭╮╰╯│─]", "", line).strip() for line in box.splitlines()]
    text = " ".join(line for line in lines[1:] if line)
    if choice := _WRONG_CHOICE.match(text):
        value, option, known = choice.groups()
        # tyro lists them as a set comes.
        names = sorted(set(re.findall(r"'([^']*)'", known)) - {"None"})
        return f"{option} must be one of {', '.join(names)}, not {value}"
    if unknown := _MISSPELT.match(text):
        name, suggested = unknown.groups()
        options = sorted(set(re.findall(r"--[\w.-]*\w", suggested)))
        likeness = {
            option: difflib.SequenceMatcher(None, name, option).ratio() for option in options
        }
        nearest = [option for option in options if likeness[option] == max(likeness.values())]
        return f"unknown option {name}; did you mean {' or '.join(nearest)}?"
    return re.sub(r"\.?\s*For full helptext, (?:run|see):? ", "; for help run ", text)
