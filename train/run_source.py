"""Where a run comes from: a name, a function in a file, or the folder of a run that has begun."""

import ast
import dataclasses
import difflib
import importlib
import importlib.util
import inspect
from collections.abc import Callable
from pathlib import Path

from llama_jax.errors import InputError
from train.config import RunConfig
from train.run_json import CONFIG_FILE, read_run

# Named here and imported when asked for: configs import train, and not the other way.
_REGISTRY = "configs.registry"


def find_run(name: str) -> RunConfig:
    """The run that a user means by `name`.

    Args:
      name: one of `configs.registry.RUNS`; `path/to/file.py:function`, a function without arguments
        that returns a `RunConfig`; or a folder with a `config.json`, whose run then has that folder
        as `output`, wherever it has been moved.

    Raises `InputError` that lists near names.
    """
    if name in named_runs():
        return _call(load_function(name), name)
    file, colon, function = name.rpartition(":")
    if colon and file.endswith(".py"):
        return _call(_function_in_file(Path(file), function), name)
    if name.endswith(".py"):
        raise InputError(_no_function_named(Path(name)))
    if (Path(name) / CONFIG_FILE).is_file():
        return dataclasses.replace(read_run(name), output=name)
    raise InputError(_not_found(name))


def named_runs() -> dict[str, str]:
    """Name -> "module:function" of the runs that come with the code."""
    return importlib.import_module(_REGISTRY).RUNS


def load_function(name: str) -> Callable[[], RunConfig]:
    """The function of a named run."""
    module, function = named_runs()[name].split(":")
    return getattr(importlib.import_module(module), function)


def _function_in_file(file: Path, function: str) -> Callable[[], RunConfig]:
    if not function or not file.is_file():
        raise InputError(_no_function_named(file))
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = getattr(module, function, None)
    if not callable(found):
        names = [name for name in vars(module) if not name.startswith("_")]
        near = difflib.get_close_matches(function, names, n=3, cutoff=0.5)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise InputError(f"{file}: has no function {function!r}{hint}")
    return found


def _no_function_named(file: Path) -> str:
    """What to say of `file` without a function: those that it has, found without running it."""
    if not file.is_file():
        return f"{file}: no such file"
    try:
        definitions = ast.parse(file.read_bytes()).body
    except (SyntaxError, ValueError) as error:
        return f"{file}: is not Python ({error})"
    names = [
        f"{file}:{function.name}"
        for function in definitions
        if isinstance(function, ast.FunctionDef) and not _needs_arguments(function.args)
    ]
    if not names:
        return f"{file}: defines no function without arguments, which could return a run"
    return f"{file}: name its function: {' or '.join(names)}"


def _needs_arguments(arguments: ast.arguments) -> bool:
    by_place = [*arguments.posonlyargs, *arguments.args]
    return len(by_place) > len(arguments.defaults) or None in arguments.kw_defaults


def _call(function: Callable[[], RunConfig], name: str) -> RunConfig:
    try:
        inspect.signature(function).bind()
    except (TypeError, ValueError) as error:  # ValueError: has no signature
        raise InputError(f"{name}: is called without arguments, but {error}") from None
    run = function()
    if not isinstance(run, RunConfig):
        raise InputError(f"{name}: must return a RunConfig, not {type(run).__name__}")
    return run


def _not_found(name: str) -> str:
    if Path(name).is_dir():
        return f"{name}: no {CONFIG_FILE} there, so it is not the folder of a run"
    near = difflib.get_close_matches(name, named_runs(), n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"one of: {', '.join(named_runs())}"
    return f"no run {name!r}; {hint} (a function in a file is file.py:function)"
