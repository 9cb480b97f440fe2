"""Whether every command line of a config can be read, asked before the first step runs: a misspelt
option of the last round would else be found after days."""

import importlib.util
import inspect
from collections.abc import Sequence
from pathlib import Path

from llama_jax.__main__ import bind_command
from llama_jax.errors import InputError
from train.command import parse_run
from train.rounds.plan import PlannedStep
from train.run_source import find_run


def check_commands(steps: Sequence[PlannedStep]) -> None:
    """Raises `InputError` that names the first step whose command line its command would refuse.
    Nothing is run, and no file of a user's is read but those with runs."""
    for planned in steps:
        try:
            check_command(planned.step.command)
        except InputError as error:
            raise InputError(f"{planned.place}: {error} -- in: {planned.line}") from None
        except SystemExit:
            raise InputError(f"{planned.place}: asks for help -- in: {planned.line}") from None


def check_command(command: Sequence[str]) -> None:
    """Of one command line, from `llama-jax` or `python -m` on. Of a module no more is known than
    whether it is there."""
    program, *arguments = command
    if program == "python":
        if len(arguments) < 2 or not _is_module(arguments[1]):
            raise InputError(f"there is no Python module {' '.join(arguments[1:2])!r}")
    elif arguments[0] == "train" and len(arguments) > 1 and not arguments[1].startswith("-"):
        name, *options = arguments[1:]
        parse_run(find_run(name), name, options)
    else:
        call = bind_command(arguments)
        bound = inspect.signature(call.func).bind(*call.args, **call.keywords)
        bound.apply_defaults()
        if bound.arguments.get("overwrite") is False:
            raise InputError("add --overwrite, or it cannot be started again after it was killed")


def _is_module(name: str) -> bool:
    """Of a package that is installed, or a file from here, where `python -m` looks too."""
    if Path(*name.split(".")).with_suffix(".py").is_file():
        return True
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False
