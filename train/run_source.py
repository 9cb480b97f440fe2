"""Where a run comes from: a name, a function in a file, or the folder of a run that has begun; and
rounds of post-training from the first two."""

import ast
import dataclasses
import difflib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llama_jax.errors import InputError
from train.config import RunConfig
from train.rounds.post_training import PostTraining
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
    run = find_config(name, named_runs(), RunConfig)
    if run is None and (Path(name) / CONFIG_FILE).is_file():
        run = dataclasses.replace(read_run(name), output=name)
    if run is None:
        raise InputError(_not_found(name))
    return run


def find_rounds(name: str) -> PostTraining:
    """The rounds of post-training that a user means by `name`.

    Args:
      name: one of `configs.registry.POST_TRAINING`, or `path/to/file.py:function`, a function
        without arguments that returns a `PostTraining`.

    Raises `InputError` that lists near names.
    """
    rounds = find_config(name, named_rounds(), PostTraining)
    if rounds is None:
        raise InputError(f"no post-training {name!r}; {_hint(name, named_rounds())}")
    return rounds


def find_config(name: str, named: dict[str, str], kind: type) -> Any | None:
    """What the function called `name` returns, one of `named` or one in a file; None if `name`
    looks like neither."""
    if name in named:
        return _call(function_at(named[name]), name, kind)
    file, colon, function = name.rpartition(":")
    if colon and file.endswith(".py"):
        return _call(_function_in_file(Path(file), function), name, kind)
    if name.endswith(".py"):
        raise InputError(_no_function_named(Path(name)))
    return None


def named_runs() -> dict[str, str]:
    """Name -> "module:function" of the runs that come with the code."""
    return importlib.import_module(_REGISTRY).RUNS


def named_rounds() -> dict[str, str]:
    """Name -> "module:function" of the post-training that comes with the code."""
    return importlib.import_module(_REGISTRY).POST_TRAINING


def load_function(name: str) -> Callable[[], RunConfig]:
    """The function of a named run."""
    return function_at(named_runs()[name])


def function_at(place: str) -> Callable[[], Any]:
    """The function at "module:function"."""
    module, function = place.split(":")
    return getattr(importlib.import_module(module), function)


def _function_in_file(file: Path, function: str) -> Callable[[], Any]:
    if not function or not file.is_file():
        raise InputError(_no_function_named(file))
    spec = importlib.util.spec_from_file_location(f"run_file_{file.stem}", file)
    module = importlib.util.module_from_spec(spec)
    # By its name tyro finds the source of classes, and in it what their fields are.
    sys.modules[spec.name] = module
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


def _call(function: Callable[[], Any], name: str, kind: type) -> Any:
    try:
        inspect.signature(function).bind()
    except (TypeError, ValueError) as error:  # ValueError: has no signature
        raise InputError(f"{name}: is called without arguments, but {error}") from None
    config = function()
    if not isinstance(config, kind):
        raise InputError(f"{name}: must return a {kind.__name__}, not {type(config).__name__}")
    return config


def _not_found(name: str) -> str:
    if Path(name).is_dir():
        return f"{name}: no {CONFIG_FILE} there, so it is not the folder of a run"
    return f"no run {name!r}; {_hint(name, named_runs())}"


def _hint(name: str, named: dict[str, str]) -> str:
    near = difflib.get_close_matches(name, named, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"one of: {', '.join(named)}"
    return f"{hint} (a function in a file is file.py:function)"
