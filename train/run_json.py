"""A `RunConfig` as JSON and back: `RUN_DIR/config.json`, from which a run is resumed or run again.

Every field is written, and every field must be there to be read: a file of another version of the
code is refused by the name of the field that is missing or unknown, never completed with defaults
that have changed since. Where a field may hold one of several dataclasses, its `kind` is the name
of the class.
"""

import dataclasses
import math
import types
import typing
from pathlib import Path
from typing import Any

from llama_jax.errors import InputError
from llama_jax.json_file import read_json, write_json
from train.config import RunConfig

CONFIG_FILE = "config.json"


def to_dict(run: RunConfig) -> dict[str, Any]:
    """JSON-ready fields; `from_dict` is the inverse."""
    return _encode(run, RunConfig)


def from_dict(fields: dict[str, Any], *, place: str) -> RunConfig:
    """The run that `to_dict` wrote.

    Args:
      place: where the fields come from, for messages.

    Raises `InputError` that names the field which is missing, unknown or of another type.
    """
    return _decode(fields, RunConfig, f"{place}: ", "")


def read_run(run_folder: str | Path) -> RunConfig:
    """The config in `run_folder`. Raises `InputError` if it is missing or damaged."""
    path = Path(run_folder) / CONFIG_FILE
    return from_dict(read_json(path), place=str(path))


def write_run(run: RunConfig) -> None:
    """Writes `run.output`/config.json, by a rename. Raises `OSError` naming the file."""
    folder = Path(run.output)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / CONFIG_FILE, to_dict(run))


def flatten(run: RunConfig) -> dict[str, Any]:
    """Every number and word of the run by its path, such as `stages[2].batch[0].rows`."""

    def walk(value: Any, path: str):
        if isinstance(value, dict):
            for name, part in value.items():
                yield from walk(part, f"{path}.{name}" if path else name)
        elif isinstance(value, list):
            for index, part in enumerate(value):
                yield from walk(part, f"{path}[{index}]")
        else:
            yield path, value

    return dict(walk(to_dict(run), ""))


def _encode(value: Any, annotation: Any) -> Any:
    if dataclasses.is_dataclass(value):
        hints = typing.get_type_hints(type(value))
        kind = {"kind": type(value).__name__} if len(_classes(annotation)) > 1 else {}
        names = [field.name for field in dataclasses.fields(value)]
        return kind | {name: _encode(getattr(value, name), hints[name]) for name in names}
    if isinstance(value, tuple):
        item = typing.get_args(annotation)[0]
        return [_encode(part, item) for part in value]
    return value


def _decode(value: Any, annotation: Any, place: str, path: str) -> Any:
    """`value` as what `annotation` says; `path` is the field's, for messages."""
    choices = typing.get_args(annotation) if _is_union(annotation) else (annotation,)
    if value is None and type(None) in choices:
        return None
    classes = _classes(annotation)
    if classes:
        return _decode_dataclass(value, classes, place, path)
    if typing.get_origin(annotation) is tuple:
        if not isinstance(value, list):
            raise InputError(f"{place}{path} must be a list, not {value!r}")
        item = typing.get_args(annotation)[0]
        return tuple(_decode(part, item, place, f"{path}[{i}]") for i, part in enumerate(value))
    (wanted,) = (choice for choice in choices if choice is not type(None))
    # JSON writes 1.0 as 1.0, but a person may write 1; true is no number.
    right = type(value) is wanted or (wanted is float and type(value) is int)
    if not right or (wanted is float and not math.isfinite(value)):
        raise InputError(f"{place}{path} must be of type {wanted.__name__}, not {value!r}")
    return wanted(value)


def _decode_dataclass(value: Any, classes: list[type], place: str, path: str) -> Any:
    name = path or "the run"
    if not isinstance(value, dict):
        raise InputError(f"{place}{name} must be an object, not {value!r}")
    value = dict(value)
    cls = classes[0]
    if len(classes) > 1:
        known = {cls.__name__: cls for cls in classes}
        kind = value.pop("kind", None)
        if not isinstance(kind, str) or kind not in known:
            raise InputError(f"{place}{name}.kind must be one of {', '.join(known)}, not {kind!r}")
        cls = known[kind]
    names = [field.name for field in dataclasses.fields(cls)]
    for what, wrong in (
        ("unknown", value.keys() - set(names)),
        ("missing", set(names) - value.keys()),
    ):
        if wrong:
            field = f"{path}.{min(wrong)}".lstrip(".")
            raise InputError(
                f"{place}the field {field} is {what}; was it written by another version?"
            )
    hints = typing.get_type_hints(cls)
    parts = {n: _decode(value[n], hints[n], place, f"{path}.{n}".lstrip(".")) for n in names}
    try:
        return cls(**parts)
    except InputError as error:  # what a model config checks of itself
        raise InputError(f"{place}{error}") from error


def _classes(annotation: Any) -> list[type]:
    """The dataclasses that a field may hold."""
    choices = typing.get_args(annotation) if _is_union(annotation) else (annotation,)
    return [choice for choice in choices if dataclasses.is_dataclass(choice)]


def _is_union(annotation: Any) -> bool:
    return typing.get_origin(annotation) in (types.UnionType, typing.Union)
