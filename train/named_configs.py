"""What the commands that take a config by name, `train` and `post-train`, have in common: their
help, their list of configs, and what a config says of itself."""

import inspect
import re
from collections.abc import Callable, Sequence

from llama_jax.errors import InputError
from train.run_source import function_at

# Heads of the paragraphs of a config's docstring.
_HEADS = re.compile(r"\n(?=(?:Command|Size|Hardware|Time|Expected loss|Expected result):)")


def take_name(
    arguments: Sequence[str], command: Callable[..., None], *, usage: str, named: dict[str, str]
) -> tuple[str, list[str]] | None:
    """The name of a config and the arguments after it; None where help or list was asked for and
    has been printed.

    Args:
      command: whose docstring is its help.
      usage: how it is called, with the name of a config.
      named: name -> "module:function" of the configs that come with the code.

    Raises `InputError` if no name comes first.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        print(inspect.getdoc(command).split("\nArgs:")[0] + "\n\n" + describe_configs(named))
        return None
    if arguments[0] == "--list":
        if len(arguments) > 1:
            raise InputError(f"--list stands alone, without {arguments[1]}")
        print(describe_configs(named))
        return None
    name, *rest = arguments
    if name.startswith("-"):
        raise InputError(f"the run comes first: {usage} {name} ...; --list names them")
    return name, rest


def describe_configs(named: dict[str, str]) -> str:
    """A line for each."""
    width = max(map(len, named))
    lines = {name: config_docstring(name, named).partition("\n")[0] for name in named}
    return "\n".join(f"  {name:<{width}}  {line}" for name, line in lines.items())


def config_docstring(name: str, named: dict[str, str]) -> str:
    """What a named config says of itself, its heads as paragraphs of their own, as tyro fills
    lines."""
    return _HEADS.sub("\n\n", inspect.getdoc(function_at(named[name])) or "")
