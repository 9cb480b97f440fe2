"""The numbers of all evaluations that are done, side by side by round."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from llama_jax.errors import InputError
from llama_jax.json_file import read_json
from train.rounds.plan import PlannedStep

# What a line of the table is of: step, task and metric.
Line = tuple[str, str, str]


def evaluation_table(steps: Sequence[PlannedStep]) -> dict[Line, dict[str, str]]:
    """(step, task, metric) -> name of the round -> mean and standard error in percent, and how many
    questions have no answer where some have none; of the `results` files of `steps`, which are
    done.

    Raises `InputError` naming the file if one is not what it should be.
    """
    table: dict[Line, dict[str, str]] = {}
    for planned in steps:
        if planned.step.results is None:
            continue
        path = Path(planned.step.results)
        for task, metric, value in _numbers(path, read_json(path)):
            of_line = table.setdefault((planned.step.name, task, metric), {})
            of_line[planned.round.name] = value
    return table


def _numbers(path: Path, results: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Task, metric and value, of what `llama-jax evaluate` or `llama-jax refusals` wrote."""
    tasks = results.get("tasks", results)
    try:
        for task, summary in tasks.items():
            if isinstance(summary, dict):
                for metric, found in summary["metrics"].items():
                    yield task, metric, _percent(found)
                if summary["failed"]:
                    yield task, "without an answer", f"{summary['failed']:,}"
    except (AttributeError, KeyError, TypeError, ValueError):
        raise InputError(
            f"{path}: is not what evaluate or refusals writes; results of a step must be"
        ) from None


def _percent(found: dict[str, Any]) -> str:
    error = found["standard_error"]
    return f"{found['mean']:.1%}" + ("" if error is None else f" ± {error:.1%}")


def print_table(table: dict[Line, dict[str, str]]) -> None:
    """Prints it on standard output, a column for each round."""
    from rich.console import Console
    from rich.table import Table

    rounds = list(dict.fromkeys(name for values in table.values() for name in values))
    drawn = Table("step", "task", "metric", *rounds)
    for line, values in table.items():
        drawn.add_row(*line, *(values.get(name, "") for name in rounds))
    Console(width=None if Console().is_terminal else 200).print(drawn)
