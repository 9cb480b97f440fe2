"""RUN_DIR/metrics.jsonl: one JSON object a line, written as the run goes, read by `report`.

Every line has `step` (steps done when the values were taken), `kind` (`train`, `evaluation` or
`event`), `time` (seconds since 1970) and the values. It is strict JSON: what is not finite is
written as the string "nan", "inf" or "-inf". A line is flushed at once; a process that is killed
can leave at most its last line unfinished, and the next one drops that.
"""

import json
import math
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from llama_jax.errors import InputError
from llama_jax.whole_file import whole_file

METRICS_FILE = "metrics.jsonl"
KINDS = ("train", "evaluation", "event")
_FIXED = ("step", "kind", "time")
_NOT_FINITE = ("nan", "inf", "-inf")


def encode(step: int, kind: str, time: float, values: dict[str, int | float | str]) -> str:
    """One line with its end; `values` as `plain` gives them."""
    if kind not in KINDS:
        raise ValueError(f"kind {kind!r} is not one of {KINDS}")
    taken = [name for name in values if name in _FIXED]
    if taken:
        raise ValueError(f"{taken[0]!r} is a field of every line, not a value")
    fields = {"step": step, "kind": kind, "time": round(time, 3), **values}
    return json.dumps(fields, allow_nan=False) + "\n"


def plain(value: Any) -> int | float | str:
    """A number of Python, NumPy or JAX (any scalar), or text, as JSON can hold it."""
    if isinstance(value, str):
        return value
    if isinstance(value, Integral):
        return int(value)
    real = float(value)
    return real if math.isfinite(real) else str(real)


def number(value: Any) -> float | None:
    """A value of a line as a number, "nan" and its like too; None for other text."""
    if isinstance(value, str):
        return float(value) if value in _NOT_FINITE else None
    return float(value) if isinstance(value, Real) else None


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of `path` in order. An unfinished last line, as in a run that is going on, is left
    out.

    Raises `InputError` for a missing file, one without lines, and a damaged line, which it names.
    """
    if not path.is_file():
        raise InputError(f"{path}: there is no such file; name the folder of a run")
    records = finished_records(path)
    if not records:
        raise InputError(f"{path}: has no metrics yet; let the run make its first step")
    return records


def finished_records(path: Path) -> list[dict[str, Any]]:
    """As `read_metrics`, but a missing file and one without lines have none."""
    return [record for _, record in _finished_lines(path)] if path.is_file() else []


def drop_after(path: Path, step: int | None) -> int:
    """Leaves in `path` what a run that goes on from `step` has behind it: drops the lines of later
    steps (all if `step` is None) and an unfinished last line. A missing file is made.

    Returns how many finished lines were dropped. The file is replaced whole, so that a crash
    leaves the old or the new one.
    """
    lines = _finished_lines(path) if path.exists() else []
    kept = [line for line, record in lines if step is not None and record["step"] <= step]
    with whole_file(path) as file:
        file.writelines(kept)
    return len(lines) - len(kept)


def _finished_lines(path: Path) -> list[tuple[bytes, dict[str, Any]]]:
    """Lines and their records; all but an unfinished last one must be whole."""
    lines = path.read_bytes().splitlines(keepends=True)
    if lines and not lines[-1].endswith(b"\n"):
        lines.pop()
    return [(line, _record(line, f"{path}, line {n}")) for n, line in enumerate(lines, 1)]


def _record(line: bytes, where: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        raise InputError(f"{where}: damaged, not a JSON object; remove the line") from None
    if not isinstance(record, dict) or any(name not in record for name in _FIXED):
        raise InputError(f"{where}: no line of metrics, which has {', '.join(_FIXED)}; remove it")
    numbers = isinstance(record["step"], int) and isinstance(record["time"], int | float)
    if not numbers or record["kind"] not in KINDS:
        raise InputError(f"{where}: step, kind or time is not what a run writes; remove the line")
    return record
