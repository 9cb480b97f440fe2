"""Memory of a device by tensor group: a bar for each plan, and what the device has."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

GIB = 2**30


def plot_memory(plans: Sequence[dict[str, Any]], labels: Sequence[str], path: Path) -> None:
    """Writes a picture in the format of `path`'s ending.

    Args:
      plans: of `plan_fields`.
      labels: one for each.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 1.2 + 0.5 * len(plans)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    names = list(dict.fromkeys(name for plan in plans for name in plan["memory"]["groups"]))
    starts = [0.0] * len(plans)
    for name in names:
        sizes = [plan["memory"]["groups"].get(name, 0) / GIB for plan in plans]
        axes.barh(range(len(plans)), sizes, left=starts, label=name)
        starts = [start + size for start, size in zip(starts, sizes, strict=True)]
    capacity = plans[0]["memory"]["capacity"] / GIB
    axes.axvline(capacity, color="black", linestyle="--", label="a device has")
    axes.set_yticks(range(len(plans)), labels)
    axes.invert_yaxis()
    axes.set_xlabel("GiB of one device")
    axes.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))
    figure.savefig(path, dpi=120)
