"""Results as they are printed."""

from typing import Any


def result_lines(results: dict[str, Any]) -> list[str]:
    """Of tasks by name, see `results.summary`."""
    lines = []
    for task, result in results.items():
        failed = f", {result['failed']:,} could not be asked" if result["failed"] else ""
        lines.append(f"{task}: {result['questions']:,} questions{failed}")
        lines += [f"  {name:<20} {share(metric)}" for name, metric in result["metrics"].items()]
        for category, part in result.get("categories", {}).items():
            if (accuracy := part["metrics"].get("accuracy")) is not None:
                lines.append(f"    {share(accuracy)} of {part['questions']:>5,}  {category}")
    return lines


def share(metric: dict[str, Any]) -> str:
    """A mean and its standard error, in percent."""
    error = metric["standard_error"]
    return f"{metric['mean']:7.2%}" + ("         " if error is None else f" +- {error:5.2%}")
