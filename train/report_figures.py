"""The pictures of a report: each function takes runs and an axis, and gives a matplotlib figure, or
None if no run has what it would show."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from train.report_canvas import (
    COLOURS,
    MARKERS,
    STYLES,
    draw_lines,
    engineering_numbers,
    finish,
    from_zero,
    log_scale_if_wide,
    new_figure,
    run_prefix,
)
from train.run_history import RunHistory, smoothed, smoothing_span

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def loss_figure(runs: Sequence[RunHistory], axis: str) -> "Figure | None":
    """Training loss, raw and smoothed, and the loss of each held-out set."""
    figure, (axes,) = new_figure(1, height=4.6)
    for index, run in enumerate(runs):
        if (loss := run.train.get("loss")) is None:
            continue
        colour, prefix = COLOURS[index % len(COLOURS)], run_prefix(runs, run)
        x, span = run.x_values(loss.steps, axis), smoothing_span(len(loss.values))
        if span > 1:
            axes.plot(x, loss.values, color=colour, alpha=0.28, linewidth=0.8)
        label = f"{prefix}training" + (f",\nmean of {span} lines" if span > 1 else "")
        axes.plot(x, smoothed(loss.values, span), color=colour, linewidth=1.8, label=label)
        for position, (name, series) in enumerate(run.held_out_losses.items()):
            axes.plot(
                run.x_values(series.steps, axis),
                series.values,
                color=colour if len(runs) > 1 else COLOURS[(position + 1) % len(COLOURS)],
                linestyle="--",
                linewidth=1.2,
                marker=MARKERS[position % len(MARKERS)],
                markersize=4.5,
                label=f"{prefix}held out: {name}",
            )
    axes.set_ylabel(f"loss, {' or '.join(dict.fromkeys(run.loss_unit for run in runs))}")
    log_scale_if_wide(axes, 2.5)
    return finish(figure, runs, axis)


def preference_figure(runs: Sequence[RunHistory], axis: str) -> "Figure | None":
    """How often the better answer is ranked first, and the rewards of better and worse ones."""
    if not any("accuracy" in run.train for run in runs):
        return None
    figure, panels = new_figure(2, height=5.0)
    draw_lines(panels[0], runs, axis, {"accuracy": "training"}, scale=100)
    for index, run in enumerate(runs):
        held_out = [name for name in run.evaluation if name.endswith("/accuracy")]
        for position, name in enumerate(held_out):
            series = run.evaluation[name]
            panels[0].plot(
                run.x_values(series.steps, axis),
                series.values * 100,
                color=COLOURS[(index if len(runs) > 1 else position + 1) % len(COLOURS)],
                linestyle="--",
                marker=MARKERS[position % len(MARKERS)],
                label=f"{run_prefix(runs, run)}held out: {name.removesuffix('/accuracy')}",
            )
    panels[0].set_ylabel("better answer first, %")
    names = {"reward_chosen": "better", "reward_rejected": "worse", "margin": "margin"}
    draw_lines(panels[1], runs, axis, names)
    panels[1].set_ylabel("reward")
    return finish(figure, runs, axis)


def learning_rate_figure(runs: Sequence[RunHistory], axis: str) -> "Figure | None":
    """The learning rate."""
    figure, (axes,) = new_figure(1, height=3.0)
    draw_lines(axes, runs, axis, {"learning_rate": ""})
    axes.set_ylabel("learning rate")
    from_zero(axes)
    # 3.0e-4 rather than 3.0e-04
    axes.yaxis.set_major_formatter(
        lambda rate, _: f"{rate:.1e}".replace("e-0", "e-") if rate else "0"
    )
    return finish(figure, runs, axis)


def gradient_norm_figure(runs: Sequence[RunHistory], axis: str) -> "Figure | None":
    """Gradient norm before clipping; a cross is a step that was skipped."""
    figure, (axes,) = new_figure(1, height=3.4)
    draw_lines(axes, runs, axis, {"gradient_norm": ""}, linewidth=1.0)
    axes.set_ylabel("gradient norm")
    log_scale_if_wide(axes, 10)
    for index, run in enumerate(runs):
        skipped, norm = run.train.get("skipped"), run.train.get("gradient_norm")
        if skipped is None or norm is None or not skipped.values.any():
            continue
        steps = skipped.steps[skipped.values > 0]
        heights = dict(zip(norm.steps, norm.values, strict=True))
        finite = np.array([np.isfinite(heights.get(step, np.nan)) for step in steps])
        style = {"linestyle": "", "marker": "x", "markersize": 7, "markeredgewidth": 2}
        colour = COLOURS[index % len(COLOURS)] if len(runs) > 1 else COLOURS[1]
        label = f"{run_prefix(runs, run)}skipped: {int(skipped.values.sum())}"
        x = run.x_values(steps, axis)
        y = [heights[step] for step in steps[finite]]
        axes.plot(x[finite], y, color=colour, label=label, **style)
        # A norm that is not finite has no height: its cross stands on the upper edge.
        edge = axes.get_xaxis_transform()
        axes.plot(x[~finite], np.full((~finite).sum(), 0.97), color=colour, transform=edge, **style)
    return finish(figure, runs, axis)


def throughput_figure(runs: Sequence[RunHistory], axis: str) -> "Figure | None":
    """Tokens a second and device, and both conventions of MFU where the peak is known."""
    has_mfu = any("mfu_causal" in run.train for run in runs)
    figure, panels = new_figure(1 + has_mfu, height=3.0 + 2.2 * has_mfu)
    draw_lines(panels[0], runs, axis, {"tokens_per_second_per_device": ""})
    panels[0].set_ylabel("tokens/s/device")
    from_zero(panels[0])
    panels[0].yaxis.set_major_formatter(engineering_numbers())
    if has_mfu:
        names = {"mfu_causal": "causal, (T + 1) / 2 keys", "mfu_full": "full, T keys"}
        draw_lines(panels[1], runs, axis, names, scale=100)
        panels[1].set_ylabel("MFU, % of BF16 peak")
        from_zero(panels[1])
    return finish(figure, runs, axis)


def time_figure(runs: Sequence[RunHistory], axis: str) -> "Figure | None":
    """Percentiles of the step time, and the share of it that waited for data."""
    figure, panels = new_figure(2, height=5.0)
    names = {f"step_seconds_p{percent}": f"p{percent}" for percent in (50, 90, 99)}
    draw_lines(panels[0], runs, axis, names)
    panels[0].set_ylabel("step time, s")
    from_zero(panels[0])
    draw_lines(panels[1], runs, axis, {"data_wait_share": ""}, scale=100)
    panels[1].set_ylabel("waiting for data, %")
    from_zero(panels[1], at_least=5)
    return finish(figure, runs, axis)


def sources_figure(runs: Sequence[RunHistory], axis: str) -> "Figure | None":
    """Rows that each source of the mixture has given; the legend has its share."""
    names = {name for run in runs for name in run.train if name.startswith("rows/")}
    figure, (axes,) = new_figure(1, height=3.6)
    for run_index, run in enumerate(runs):
        totals = {name: run.train[name].values[-1] for name in sorted(names & run.train.keys())}
        for position, name in enumerate(sorted(totals, key=totals.get, reverse=True)):
            series, share = run.train[name], totals[name] / max(sum(totals.values()), 1)
            axes.plot(
                run.x_values(series.steps, axis),
                series.values,
                color=COLOURS[(position if len(runs) == 1 else run_index) % len(COLOURS)],
                linestyle=STYLES[position % len(STYLES)],
                label=f"{run_prefix(runs, run)}{name.removeprefix('rows/')}, {share:.1%}",
            )
    axes.set_ylabel("rows")
    from_zero(axes)
    axes.yaxis.set_major_formatter(engineering_numbers())
    return finish(figure, runs, axis)


# File name -> heading and what draws it.
FIGURES: dict[str, tuple[str, Callable]] = {
    "loss": ("Loss", loss_figure),
    "preferences": ("Preferences", preference_figure),
    "learning_rate": ("Learning rate", learning_rate_figure),
    "gradient_norm": ("Gradient norm", gradient_norm_figure),
    "throughput": ("Throughput", throughput_figure),
    "time": ("Step time and data wait", time_figure),
    "sources": ("Rows by source", sources_figure),
}
