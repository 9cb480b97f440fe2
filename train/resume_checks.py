"""Going on with a run whose config has changed since: what may change, and what would make the
checkpoint and the config tell different stories.

Free to change are the mesh and all that leaves the numbers alone or only concerns the future: how
often to log, to evaluate and to save, memory (remat, micro-batches, chunks), kernels for the same
numbers, which steps are refused, stages that have not begun, the gate of the stage under way, and
its length, so long as its learning rate does not depend on it.
"""

import re
from pathlib import Path
from typing import Any

from llama_jax.checkpoints.training_layout import read_description, saved_steps, step_folder
from llama_jax.errors import InputError
from train.config import EvaluationSet, RunConfig
from train.progress import Progress
from train.run_json import flatten
from train.schedules import Linear

# Fields, by the beginning of their paths, that may change at any time.
_FREE = (
    "output",
    "mesh.",
    "remat",
    "attention",
    "matmul_implementation",
    "vocab_chunk",
    "optimizer.spike_factor",
    "optimizer.max_skipped",
    "checkpoint.",
    "evaluations",
    "evaluate_every_steps",
    "log_every_steps",
    "profile",
)
_ABSENT = object()


def latest_progress(run_folder: str | Path) -> Progress | None:
    """How far the run in `run_folder` has come by its latest checkpoint; None without one.

    Raises `InputError` if that is damaged.
    """
    steps = saved_steps(Path(run_folder))
    if not steps:
        return None
    folder = step_folder(Path(run_folder), steps[-1])
    _, fields = read_description(folder)
    try:
        return Progress.from_dict(fields.get("progress"))
    except InputError as error:
        raise InputError(f"{folder}: {error}; remove it to go on from the one before") from error


def check_resume(before: RunConfig, now: RunConfig, progress: Progress) -> None:
    """Raises `InputError` that names the first field of `now` which may not differ from `before`.

    Args:
      before: with which the run came to `progress`.
      now: with which it shall go on.
    """
    old, new = flatten(before), flatten(now)
    for path in dict.fromkeys([*old, *new]):
        if old.get(path, _ABSENT) != new.get(path, _ABSENT) and not _is_free(
            path, before, progress
        ):
            _refuse(path, _said(old, path), _said(new, path), now, progress)
    gate = before.stages[progress.stage].gate if _is_under_way(progress) else None
    if gate is not None:
        # What the gate will compare with was measured on this set when the stage began.
        measured, wanted = _set_named(gate.short_set, before), _set_named(gate.short_set, now)
        if measured != wanted:
            _refuse(f"evaluations, {gate.short_set}", str(measured), str(wanted), now, progress)


def changed_fields(before: RunConfig, now: RunConfig) -> list[str]:
    """`field: old -> new` of all that differ, but for where the run lies."""
    old, new = flatten(before), flatten(now)
    return [
        f"{path}: {_said(old, path)} -> {_said(new, path)}"
        for path in dict.fromkeys([*old, *new])
        if path != "output" and old.get(path) != new.get(path)
    ]


def _is_free(path: str, run: RunConfig, progress: Progress) -> bool:
    """Whether the field at `path` may change at `progress` of `run`."""
    if path.startswith(_FREE):
        return True
    match = re.match(r"stages\[(\d+)\]\.(.*)", path)
    if match is None:
        return False
    index, field = int(match[1]), match[2]
    if index > progress.stage or (index == progress.stage and not _is_under_way(progress)):
        return True
    if re.fullmatch(r"batch\[\d+\]\.micro_batches", field):
        return True
    if index < progress.stage:
        return False
    if field == "num_tokens":
        # A line's slope depends on the length, and so does which checkpoints are averaged.
        stage = run.stages[index]
        return not isinstance(stage.learning_rate, Linear) and not stage.average_last
    return field.startswith("gate.") and field != "gate.short_set"


def _is_under_way(progress: Progress) -> bool:
    """Whether the stage `progress.stage` has begun."""
    return bool(progress.stage_step or progress.baselines)


def _set_named(name: str, run: RunConfig) -> EvaluationSet | None:
    return next((held_out for held_out in run.evaluations if held_out.name == name), None)


def _said(fields: dict[str, Any], path: str) -> str:
    return repr(fields[path]) if path in fields else "absent"


def _refuse(path: str, was: str, now: str, run: RunConfig, progress: Progress) -> None:
    raise InputError(
        f"{path}: was {was} and is {now} now, so the run in {run.output} cannot go on after step "
        f"{progress.step}; give it back, or begin another run with another --output"
    )
