"""Results as they are printed."""

from typing import Any


def result_lines(results: dict[str, Any]) -> list[str]:
    """Of tasks by name, see `results.summary`."""
    return [
        line
        for task, result in results.items()
        for line in summary_lines(task, result, by_category="accuracy")
    ]


def summary_lines(
    title: str, result: dict[str, Any], *, by_category: str, note: str = ""
) -> list[str]:
    """Of one summary.

    Args:
      by_category: the metric that each category has a line for.
      note: after the number of questions.
    """
    failed = f", {result['failed']:,} without an answer" if result["failed"] else ""
    plural = "" if result["questions"] == 1 else "s"
    lines = [f"{title}: {result['questions']:,} question{plural}{failed}{note}"]
    lines += [f"  {name:<20} {_share(metric)}" for name, metric in result["metrics"].items()]
    for category, part in result.get("categories", {}).items():
        if (metric := part["metrics"].get(by_category)) is not None:
            lines.append(f"    {_share(metric)} of {part['questions']:>5,}  {category}")
    return lines


def _share(metric: dict[str, Any]) -> str:
    """A mean and its standard error, in percent; one value has none."""
    error = metric["standard_error"]
    return f"{metric['mean']:7.2%}" + (" +-   n/a" if error is None else f" +- {error:5.2%}")
