"""What the folder of a run tells of the processes before this one: on what they ran, and whether
they came to the end."""

import dataclasses
from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from llama_jax.checkpoints.orbax_layout import DESCRIPTION_FILE
from llama_jax.checkpoints.training_layout import FINAL_WEIGHTS_FOLDER
from llama_jax.json_file import read_json, write_json
from train.config import RunConfig
from train.metrics_file import METRICS_FILE, finished_records
from train.run_json import to_dict

_FINISHED_FILE = ".finished.json"


def note_finished(run: RunConfig, step: int) -> None:
    """Writes down that the final weights, of `step`, are there. To be called by one process."""
    path = Path(run.output) / _FINISHED_FILE
    write_json(path, _finished(run, step))


def is_finished(run: RunConfig, step: int) -> bool:
    """Whether a process has come to the end of just this run from the checkpoint of `step`, and the
    weights that it wrote are there."""
    folder = Path(run.output)
    noted, weights = folder / _FINISHED_FILE, folder / FINAL_WEIGHTS_FOLDER / DESCRIPTION_FILE
    if not (noted.is_file() and weights.is_file()):
        return False
    return read_json(noted) == _finished(run, step)


def _finished(run: RunConfig, step: int) -> dict[str, Any]:
    """A folder may be moved."""
    return {"step": step, "config": to_dict(dataclasses.replace(run, output=""))}


def devices_before(run_folder: str | Path) -> str | None:
    """On what the latest process ran, as `devices_text` says it; None if it has not said so."""
    records = finished_records(Path(run_folder) / METRICS_FILE)
    return next((record["on"] for record in reversed(records) if "on" in record), None)


def devices_text(mesh: Mesh) -> str:
    """Number of devices, and the axes of the mesh that are longer than 1."""
    axes = " x ".join(f"{name} {size}" for name, size in mesh.shape.items() if size > 1)
    return f"{mesh.size} devices ({axes})" if axes else "1 device"
