"""`llama-jax report`: what happened in a run, or in several, as pictures and one HTML page."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import tyro

from llama_jax.errors import InputError
from llama_jax.whole_file import whole_file
from train.output_folder import check_output_folder

PAGE = "report.html"


def report(
    runs: tyro.conf.Positional[tuple[Path, ...]],
    *,
    output: Path | None = None,
    axis: Literal["tokens", "steps"] | None = None,
) -> None:
    """Draws loss, learning rate, gradient norm, throughput and data wait of one run or several.

    Example: llama-jax report runs/tiny_cpu runs/tiny_cpu_wide --output comparison

    Args:
      runs: folders of runs; several are drawn over one another.
      output: folder for the PNG files and report.html; RUN/report for one run.
      axis: what the pictures are drawn over; tokens, if every run has counted them.
    """
    if not runs:
        raise InputError("name the folder of a run, which holds metrics.jsonl")
    if output is None and len(runs) > 1:
        raise InputError("--output FOLDER: say where the report of several runs goes")
    if output is not None:
        check_output_folder(output)
    from train.report_figures import FIGURES
    from train.report_page import page
    from train.run_history import read_run

    histories = [
        read_run(folder, name=name) for folder, name in zip(runs, _names(runs), strict=True)
    ]
    uncounted = [run.name for run in histories if "total_tokens" not in run.train]
    if axis == "tokens" and uncounted:
        raise InputError(f"--axis tokens: {uncounted[0]} has not counted them; give --axis steps")
    axis = axis or ("steps" if uncounted else "tokens")
    folder = output or runs[0] / "report"
    folder.mkdir(parents=True, exist_ok=True)
    pictures = []
    for name, (heading, draw) in FIGURES.items():
        if (figure := draw(histories, axis)) is not None:
            path = folder / f"{name}.png"
            with whole_file(path) as file:
                figure.savefig(file, format="png")
            pictures.append((heading, path.read_bytes()))
    with whole_file(folder / PAGE) as file:
        file.write(page(histories, pictures).encode())
    print(f"{folder / PAGE}: {', '.join(run.name for run in histories)}, {len(pictures)} pictures")


def _names(folders: Sequence[Path]) -> list[str]:
    """The last part of each path, or all of it where that part is not enough."""
    short = [folder.resolve().name for folder in folders]
    counts = Counter(short)
    return [
        name if counts[name] == 1 else str(folder)
        for name, folder in zip(short, folders, strict=True)
    ]
