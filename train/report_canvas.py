"""What the pictures of a report share: axes, colours, stage borders, legends.

One run: colours tell series apart. Several: a colour is a run, and line styles and markers tell its
series apart. Colours are those of Okabe and Ito, which the colour-blind can tell apart too.
"""

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from train.run_history import RunHistory

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import Formatter

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLES = ("-", "--", ":", "-.")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_NO_RUN = "#555555"  # colour of what no single run has
_TITLE_LETTERS = 100  # of a line
_LETTER_WIDTH = 0.011  # of a stage's name, as a share of the width of the axes
_AXIS_LABELS = {"tokens": "tokens trained on", "steps": "steps"}


def new_figure(num_panels: int, *, height: float) -> "tuple[Figure, np.ndarray]":
    """A figure of `height` inches and its panels, one above the other."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.5, height), dpi=130, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.1)
    panels = figure.subplots(num_panels, 1, sharex=True, squeeze=False)[:, 0]
    for panel in panels:
        panel.grid(True, color="#dddddd", linewidth=0.6)
        panel.set_axisbelow(True)
        panel.spines[["top", "right"]].set_visible(False)
    return figure, panels


def draw_lines(
    axes: "Axes",
    runs: Sequence[RunHistory],
    axis: str,
    names: dict[str, str],
    *,
    scale: float = 1.0,
    linewidth: float = 1.4,
) -> None:
    """One line a run and name; `names` are those of the values and what the legend says."""
    for index, run in enumerate(runs):
        for position, (name, text) in enumerate(names.items()):
            series = run.train.get(name)
            if series is None:
                continue
            label = f"{run_prefix(runs, run)}{text}".removesuffix(": ") or None
            axes.plot(
                run.x_values(series.steps, axis),
                series.values * scale,
                color=COLOURS[(position if len(runs) == 1 else index) % len(COLOURS)],
                linestyle=STYLES[position % len(STYLES)],
                linewidth=linewidth,
                label=label,
            )


def run_prefix(runs: Sequence[RunHistory], run: RunHistory) -> str:
    """What a legend says before the series of one of several runs."""
    return f"{run.name}: " if len(runs) > 1 else ""


def log_scale_if_wide(axes: "Axes", ratio: float) -> None:
    """A logarithmic scale, with plain numbers, where the greatest value is `ratio` times the
    least: the beginning of a run would press the rest of it flat."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    values = np.concatenate([line.get_ydata() for line in axes.lines] or [np.zeros(0)])
    values = values[np.isfinite(values) & (values > 0)]
    if values.size and values.max() > ratio * values.min():
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 4, 6, 8)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())


def from_zero(axes: "Axes", *, at_least: float = 0.0) -> None:
    """The height begins at 0 and leaves some room above what is drawn."""
    axes.set_ylim(bottom=0, top=max(axes.get_ylim()[1] * 1.06, at_least))


def engineering_numbers() -> "Formatter":
    """12,000,000 as 12 M."""
    from matplotlib.ticker import EngFormatter

    return EngFormatter(sep=" ")


def finish(figure: "Figure", runs: Sequence[RunHistory], axis: str) -> "Figure | None":
    """Title, labels, stage borders and legends; None if no panel has a line."""
    from matplotlib.text import Text

    panels = figure.axes
    if not any(panel.lines for panel in panels):
        return None
    title = textwrap.fill(", ".join(run.name for run in runs), _TITLE_LETTERS)
    figure.suptitle(title, fontsize=11)
    panels[-1].set_xlabel(_AXIS_LABELS[axis])
    panels[-1].xaxis.set_major_formatter(engineering_numbers())
    for panel in panels:
        if not _has_values(panel):
            _say_so(panel)
    last = max(run.x_values(run.steps, axis)[-1] for run in runs) * 1.05
    panels[-1].set_xlim(left=0, right=None if any(map(_has_values, panels)) else last)
    borders = {}
    for index, run in enumerate(runs):
        colour = COLOURS[index % len(COLOURS)] if len(runs) > 1 else _NO_RUN
        starts = run.x_values(np.array([step for _, step in run.stages]), axis)
        if len(run.stages) > 1:
            for (name, _), x in zip(run.stages, starts, strict=True):
                borders[x, name] = _NO_RUN if (x, name) in borders else colour
    _mark_stages(panels, borders)
    for panel in panels:
        if panel.get_legend_handles_labels()[0]:
            panel.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=9)
    for text in figure.findobj(Text):
        text.set_parse_math(False)  # the dollar signs of names are no mathematics
    return figure


def _has_values(panel: "Axes") -> bool:
    """Whether anything drawn has a place on both axes: a mark on the edge has none."""
    return any(
        np.isfinite(line.get_ydata()).any()
        for line in panel.lines
        if line.get_transform() is panel.transData
    )


def _say_so(panel: "Axes") -> None:
    """In place of numbers on an axis that no value has given them."""
    place = {"transform": panel.transAxes, "ha": "center", "va": "center"}
    panel.text(0.5, 0.5, "no finite values", color=_NO_RUN, **place)
    panel.set_yscale("linear")
    panel.set_yticks([])


def _mark_stages(panels: np.ndarray, borders: dict[tuple[float, str], str]) -> None:
    """A line in every panel where a stage begins, its name above the first panel; `borders` give
    colours. Names that would run into one another stand in rows."""
    right = panels[0].get_xlim()[1]
    row_ends: list[float] = []
    for (x, name), colour in sorted(borders.items()):
        for panel in panels:
            panel.axvline(x, color=colour, linewidth=0.9, linestyle=(0, (2, 3)))
        row = next((row for row, end in enumerate(row_ends) if end <= x), len(row_ends))
        row_ends[row:] = [x + right * (len(name) + 1) * _LETTER_WIDTH, *row_ends[row + 1 :]]
        panels[0].annotate(
            name,
            (x, 1.0),
            (3, 3 + 11 * row),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            color=colour,
            fontsize=8.5,
            annotation_clip=False,
        )
