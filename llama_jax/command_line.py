"""A function's typed arguments as a command line (tyro), every mistake as one line."""

import contextlib
import difflib
import functools
import inspect
import io
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

from llama_jax.errors import InputError

# Of tyro's complaints: a value, the option and the values that it takes; options that there are
# not, with their values, and what comes near them, with its help.
_WRONG_CHOICE = re.compile(r"invalid choice (.+) for argument '(\S+)'\. Expected one of \((.+?)\)")
_UNKNOWN = re.compile(
    r"Unrecognized options: (--.*?)"
    r"((?: Perhaps you meant:| Arguments similar to ).*?)?(; for help run .*)?"
)
_OPTION = re.compile(r"--[\w.-]*\w")
# Of Google's docstrings: where an argument begins, and where it goes on.
_ARGUMENT, _CONTINUED = re.compile(r"  \S"), re.compile(r"   +\S")
_MOST_COLUMNS = 100


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

    description, newline, described = (inspect.getdoc(function) or "").partition("\nArgs:")
    bind.__doc__ = description + newline + _joined(described)
    bind.__signature__ = inspect.signature(function)
    del bind.__wrapped__  # where tyro would look for both

    complaint, explanation = io.StringIO(), _Explanation()
    try:
        with contextlib.redirect_stderr(complaint), contextlib.redirect_stdout(explanation):
            return tyro.cli(
                bind,
                prog=prog,
                description=_wrapped(description),
                args=list(arguments),
                config=(tyro.conf.PositionalMetavarFromFieldName, *markers),
            )
    except SystemExit as stop:
        if stop.code in (None, 0):
            print(re.sub(r"\n{3,}", "\n\n", explanation.getvalue()), end="")
            raise
        raise InputError(_one_line(complaint.getvalue())) from None


class _Explanation(io.StringIO):
    """What tyro prints, in colours and with frames where stdout has them."""

    @property
    def encoding(self) -> str:
        return sys.__stdout__.encoding

    def isatty(self) -> bool:
        return sys.__stdout__.isatty()


def parses_itself(function: Callable) -> bool:
    """Whether `function` takes `*arguments`: what it accepts depends on what the first names."""
    parameters = inspect.signature(function).parameters.values()
    return any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters)


def _one_line(box: str) -> str:
    """tyro's framed complaint, a title and some lines, as one line without the title."""
    lines = [
        re.sub(r"\x1b\[[0-9;]*m|[╭╮╰╯│─]|-{5,}", "", line).strip() for line in box.splitlines()
    ]
    text = " ".join(line for line in lines[1:] if line)
    text = re.sub(r"\.?\s*For full helptext, (?:run|see):? ", "; for help run ", text)
    if choice := _WRONG_CHOICE.match(text):
        value, option, known = choice.groups()
        # tyro lists them as a set comes.
        names = sorted(set(re.findall(r"'([^']*)'", known)) - {"None"})
        return f"{option} must be one of {', '.join(names)}, not {value}"
    if unknown := _UNKNOWN.fullmatch(text):
        given, suggested, for_help = (part or "" for part in unknown.groups())
        return _unknown_options(given, suggested, for_help)
    return text


def _unknown_options(given: str, suggested: str, for_help: str) -> str:
    """All options that there are not, each with what comes nearest to it."""
    names = [word.strip(",") for word in given.split() if word.startswith("--")]
    options = sorted(set(_OPTION.findall(suggested)) - set(names))
    near = {name: _nearest(name, options) for name in names}
    if len(names) == 1:
        (name,) = names
        return f"unknown option {name}" + (f"; did you mean {near[name]}?" if options else for_help)
    said = [f"{name} (did you mean {near[name]}?)" if near[name] else name for name in names]
    return f"unknown options {', '.join(said)}"


def _nearest(name: str, options: Sequence[str]) -> str:
    """Those of `options` that are most like `name`, if any is."""
    likeness = {option: difflib.SequenceMatcher(None, name, option).ratio() for option in options}
    most = max(likeness.values(), default=0.0)
    return " or ".join(option for option in options if likeness[option] == most >= 0.6)


def _wrapped(description: str) -> str:
    """Paragraphs for the terminal's width. tyro would join lines, but for those that begin with no
    letter; what is indented stays as it is."""
    width = min(shutil.get_terminal_size().columns, _MOST_COLUMNS)
    paragraphs = []
    for paragraph in description.strip().split("\n\n"):
        if not re.search(r"^\s", paragraph, re.MULTILINE):
            paragraph = textwrap.fill(
                " ".join(paragraph.split("\n")), width - 1,
                break_long_words=False, break_on_hyphens=False,
            )  # fmt: skip
        paragraphs.append(textwrap.indent(paragraph, " "))
    return "\n\n".join(paragraphs)


def _joined(arguments: str) -> str:
    """What a docstring says of arguments, each on one line: tyro wraps it."""
    lines: list[str] = []
    for line in arguments.split("\n"):
        if lines and _CONTINUED.match(line) and _ARGUMENT.match(lines[-1]):
            lines[-1] += f" {line.strip()}"
        else:
            lines.append(line)
    return "\n".join(lines)
