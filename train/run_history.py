"""A run as it stands on disk, ready to be drawn: series of numbers by name, stages, config.

Names that have a meaning here, in lines of kind `train`: `loss`, `learning_rate`, `gradient_norm`,
`skipped` (steps skipped since the last line), `total_tokens` (of the run so far), `rows/NAME` (rows
of source NAME in the stage so far), what `StepTimer` and `Throughput` give, and what a loss counts:
`tokens`, `pairs` or `comparisons` of a step. In a line of kind `evaluation` a number named for a
set is its loss, and `SET/METRIC` another metric of it.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from llama_jax.errors import InputError
from llama_jax.json_file import read_json
from train.metrics_file import METRICS_FILE, number, read_metrics
from train.run_json import CONFIG_FILE

_NO_VALUES = ("step", "kind", "time", "stage")
# What a loss may be a mean over, and one of it.
_COUNTED = {"tokens": "token", "pairs": "pair", "comparisons": "comparison"}


@dataclass(frozen=True)
class Series:
    """Numbers `values` float64 `[n]` at steps `steps` float64 `[n]`, in order."""

    steps: np.ndarray
    values: np.ndarray


@dataclass(frozen=True)
class RunHistory:
    """One run.

    Attributes:
      name: what the report calls it.
      config: of the run, empty if its folder has none.
      train: lines of kind `train`, by name of the value, and `step` itself.
      evaluation: the same for held-out sets.
      stages: name and the step it began after, in order.
      seconds: from the first line to the last, pauses between processes included.
    """

    name: str
    config: dict[str, Any]
    train: dict[str, Series]
    evaluation: dict[str, Series]
    stages: tuple[tuple[str, float], ...]
    seconds: float

    @property
    def steps(self) -> np.ndarray:
        """float64 `[n]`, those of all lines of kind `train`."""
        return self.train["step"].values

    @property
    def loss_unit(self) -> str:
        """What a loss is measured in: `nats a token`."""
        counted = [one for name, one in _COUNTED.items() if name in self.train]
        return f"nats a {' or '.join(counted or ['token'])}"

    @property
    def held_out_losses(self) -> dict[str, Series]:
        """The loss of each held-out set, by its name."""
        return {name: series for name, series in self.evaluation.items() if "/" not in name}

    def x_values(self, steps: np.ndarray, axis: str) -> np.ndarray:
        """Where `steps` lie on an axis of `steps` or of `tokens`."""
        if axis == "steps":
            return steps
        seen = self.train["total_tokens"]
        # Nothing was seen before the first step.
        return np.interp(steps, [0.0, *seen.steps], [0.0, *seen.values])


def read_run(folder: Path, *, name: str) -> RunHistory:
    """The run in `folder`. Raises `InputError` naming the file if it is missing, empty, damaged or
    has no training step yet."""
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such folder; name the folder of a run")
    path = folder / METRICS_FILE
    records = read_metrics(path)
    train = [record for record in records if record["kind"] == "train"]
    if not train:
        raise InputError(f"{path}: has no training step yet; let the run make its first step")
    config = folder / CONFIG_FILE
    stages: dict[str, float] = {}
    last_step = 0.0
    for record in train:
        if "stage" in record:
            stages.setdefault(record["stage"], last_step)
        last_step = record["step"]
    steps = np.array([record["step"] for record in train], float)
    return RunHistory(
        name=name,
        config=read_json(config) if config.exists() else {},
        train={"step": Series(steps, steps)} | _series(_rows_of_the_run(train)),
        evaluation=_series(record for record in records if record["kind"] == "evaluation"),
        stages=tuple(stages.items()),
        seconds=records[-1]["time"] - records[0]["time"],
    )


def _rows_of_the_run(records: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The records with `rows/NAME` counted over all stages."""
    before, last, stage = Counter(), {}, None
    for record in records:
        if record.get("stage") != stage:
            before.update(last)
            last, stage = {}, record.get("stage")
        rows = {name: value for name, value in record.items() if name.startswith("rows/")}
        last |= rows
        yield record | {name: before[name] + value for name, value in rows.items()}


def _series(records: Iterable[dict[str, Any]]) -> dict[str, Series]:
    found: dict[str, tuple[list, list]] = {}
    for record in records:
        for name, value in record.items():
            if name not in _NO_VALUES and (real := number(value)) is not None:
                steps, values = found.setdefault(name, ([], []))
                steps.append(record["step"])
                values.append(real)
    return {
        name: Series(np.array(steps, float), np.array(values, float))
        for name, (steps, values) in found.items()
    }


def smoothed(values: np.ndarray, span: int) -> np.ndarray:
    """Mean `[n]` of about `span` lines around each; what is not finite is left out.

    Near the beginning, where the loss falls steeply, of as many before as after, so that the curve
    is not moved; near the end, where it is flat, of as many as there are.
    """
    finite = np.isfinite(values)
    sums = np.concatenate([[0.0], np.cumsum(np.where(finite, values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(finite)])
    position = np.arange(len(values))
    reach = np.minimum(span // 2, position)
    first, end = position - reach, np.minimum(position + reach + 1, len(values))
    count = counts[end] - counts[first]
    mean = (sums[end] - sums[first]) / np.maximum(count, 1)
    return np.where(count > 0, mean, np.nan)


def smoothing_span(num_lines: int) -> int:
    """Lines to smooth over: a fiftieth of the run."""
    return max(num_lines // 50, 1)
