"""The report as one HTML file that needs no other: pictures embedded, a summary, the configs."""

import base64
import html
from collections.abc import Sequence
from typing import Any

import numpy as np

from train.run_history import RunHistory, smoothing_span
from train.terminal import clock_text

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2em auto; padding: 0 1em;
  color: #222; background: #fff; }
h1 { font-size: 1.5em } h2 { font-size: 1.15em; margin: 1.6em 0 0.4em }
img { max-width: 100%; height: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { text-align: left; padding: 0.2em 1.2em 0.2em 0; border-bottom: 1px solid #ddd;
  vertical-align: top }
td { overflow-wrap: anywhere } .differs td { background: #fff3d6 }
"""


def summary(run: RunHistory) -> dict[str, str]:
    """What a run came to, by name, as text with units."""
    rows = {"stages": ", ".join(name for name, _ in run.stages) or "one without a name"}
    rows["steps"] = f"{run.steps[-1]:,.0f}"
    train = {name: series.values for name, series in run.train.items()}
    if "total_tokens" in train:
        rows["tokens"] = f"{train['total_tokens'][-1]:,.0f}"
    if "loss" in train:
        span = smoothing_span(len(train["loss"]))
        last = train["loss"][-span:]
        loss = np.nanmean(last) if np.isfinite(last).any() else np.nan
        rows["final training loss"] = f"{loss:.4f} {run.loss_unit} (mean of the last {span} lines)"
    for name, series in run.held_out_losses.items():
        best = np.nanmin(series.values) if np.isfinite(series.values).any() else np.nan
        rows[f"final loss, {name}"] = f"{series.values[-1]:.4f} (lowest {best:.4f})"
    for name, series in run.evaluation.items():
        if name not in run.held_out_losses:
            rows[f"final {name}"] = f"{series.values[-1]:.4f}"
    rows["skipped steps"] = f"{np.nansum(train.get('skipped', np.zeros(1))):.0f}"
    for name, text, form in (
        ("tokens_per_second", "tokens/s", "{:,.0f}"),
        ("tokens_per_second_per_device", "tokens/s/device", "{:,.0f}"),
        ("mfu_causal", "MFU, causal", "{:.1%}"),
        ("mfu_full", "MFU, full", "{:.1%}"),
        ("step_seconds_p50", "step time, p50", "{:.4g} s"),
        ("data_wait_share", "waiting for data", "{:.2%}"),
    ):
        if name in train:
            rows[text] = f"{form.format(np.nanmedian(train[name]))} (median)"
    for name in ("compile", "checkpoint", "evaluation"):
        if (seconds := train.get(f"{name}_seconds")) is not None:
            rows[f"{name} time"] = f"{np.nansum(seconds):,.1f} s"
    rows["first line to last"] = clock_text(run.seconds)
    return rows


def page(runs: Sequence[RunHistory], pictures: Sequence[tuple[str, bytes]]) -> str:
    """HTML of headings with PNG bytes, a summary and the configs; fields that differ between runs
    are marked."""
    title = html.escape("Training report: " + ", ".join(run.name for run in runs))
    parts = [
        "<!doctype html>",
        f'<html lang="en"><head><meta charset="utf-8"><title>{title}</title>',
        f"<style>{_STYLE}</style></head><body><h1>{title}</h1>",
        "<h2>Summary</h2>",
        _table(runs, [summary(run) for run in runs], mark=False),
    ]
    for heading, png in pictures:
        source = base64.b64encode(png).decode()
        parts.append(f"<h2>{html.escape(heading)}</h2>")
        parts.append(f'<img alt="{html.escape(heading)}" src="data:image/png;base64,{source}">')
    parts.append("<h2>Run config</h2>")
    if any(run.config for run in runs):
        parts.append(_table(runs, [flattened(run.config) for run in runs], mark=len(runs) > 1))
    else:
        parts.append("<p>No config.json in the folder.</p>")
    parts.append("</body></html>\n")
    return "\n".join(parts)


def flattened(value: Any, name: str = "") -> dict[str, str]:
    """{"mesh": {"data": 1}} -> {"mesh.data": "1"}, lists by position."""
    if isinstance(value, dict) and value:
        items = value.items()
    elif isinstance(value, list) and value:
        items = enumerate(value)
    else:
        return {name: str(value)}
    fields: dict[str, str] = {}
    for key, inner in items:
        fields |= flattened(inner, f"{name}.{key}" if name else str(key))
    return fields


def _table(runs: Sequence[RunHistory], columns: list[dict[str, str]], *, mark: bool) -> str:
    lines = ["<table>"]
    if len(runs) > 1:
        names = "".join(f"<th>{html.escape(run.name)}</th>" for run in runs)
        lines.append(f"<tr><th></th>{names}</tr>")
    for name in dict.fromkeys(name for column in columns for name in column):
        values = [column.get(name, "") for column in columns]
        differs = ' class="differs"' if mark and len(set(values)) > 1 else ""
        cells = "".join(f"<td>{html.escape(value)}</td>" for value in values)
        lines.append(f"<tr{differs}><th>{html.escape(name)}</th>{cells}</tr>")
    return "\n".join([*lines, "</table>"])
