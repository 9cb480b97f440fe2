"""What a training checkpoint says of itself, and whether a run may go on from it."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from llama_jax.checkpoints.training_layout import (
    DESCRIPTION_ITEM,
    FORMAT_VERSION,
    PARAMS,
    TRAINING_FILE,
    read_description,
)
from llama_jax.config import ModelConfig
from llama_jax.errors import InputError
from llama_jax.json_file import read_json
from train.progress import Progress


def leaf_names(tree: Any) -> list[str]:
    """The path of each leaf of any pytree, such as `params.blocks.attention.query`, in order."""
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(tree)]
    names = [jax.tree_util.keystr(path, simple=True, separator=".") for path in paths]
    if len(set(names)) != len(names):
        raise ValueError("two leaves of the state have one name")
    return names


def describe(
    state: Any, progress: Progress, model_config: ModelConfig, metrics: Mapping[str, float]
) -> dict[str, Any]:
    """The JSON that lies beside the arrays; `metrics` are evaluation losses by set."""
    return {
        "format_version": FORMAT_VERSION,
        "config": model_config.to_dict(),
        "progress": progress.to_dict(),
        "metrics": {name: float(loss) for name, loss in metrics.items()},
        "leaves": _describe_leaves(state),
    }


def _describe_leaves(state: Any) -> dict[str, Any]:
    leaves = zip(leaf_names(state), jax.tree.leaves(state), strict=True)
    return {name: {"shape": list(leaf.shape), "dtype": leaf.dtype.name} for name, leaf in leaves}


def read_metrics(folder: Path) -> dict[str, float]:
    """The evaluation losses that the checkpoint `folder` was saved with. None for one without a
    sound description, such as a killed rotation leaves: no reason to stop a run that does not use
    it."""
    try:
        metrics = read_json(folder / DESCRIPTION_ITEM / TRAINING_FILE).get("metrics")
    except InputError:
        return {}
    losses = metrics if isinstance(metrics, dict) else {}
    return {name: loss for name, loss in losses.items() if isinstance(loss, float)}


def read_progress(folder: Path, state: Any, model_config: ModelConfig | None) -> Progress:
    """The progress at which the checkpoint `folder` was saved.

    Args:
      state: arrays or `ShapeDtypeStruct`s; what is to be restored.
      model_config: the model of the run, if it shall be that of the checkpoint.

    Raises `InputError` if the checkpoint is damaged, or not of this model and optimiser; it says
    what differs.
    """
    saved_config, fields = read_description(folder)
    try:
        progress = Progress.from_dict(fields.get("progress"))
    except InputError as error:
        raise InputError(f"{folder / DESCRIPTION_ITEM / TRAINING_FILE}: {error}") from error
    if model_config is not None:
        _check_config(folder, saved_config, model_config)
    _check_leaves(folder, fields.get("leaves"), _describe_leaves(state))
    return progress


def _check_config(folder: Path, saved: ModelConfig, wanted: ModelConfig) -> None:
    for field in dataclasses.fields(ModelConfig):
        there, here = getattr(saved, field.name), getattr(wanted, field.name)
        if there != here:
            raise InputError(
                f"{folder}: is of another model: {field.name} is {there} there and {here} in the "
                "run; give back the model or choose another output"
            )


def _check_leaves(folder: Path, saved: Any, wanted: dict[str, Any]) -> None:
    if not isinstance(saved, dict):
        raise InputError(f"{folder}: its {TRAINING_FILE} lists no leaves; remove the folder")
    for name in [*wanted, *saved]:
        there, here = saved.get(name), wanted.get(name)
        if there == here:
            continue
        what = "model" if name.split(".")[0] == PARAMS else "optimizer"
        raise InputError(
            f"{folder}: {name} is {_describe(there)} there and {_describe(here)} in the run; give "
            f"back the {what} settings it was saved with or choose another output"
        )


def _describe(leaf: Any) -> str:
    if leaf is None:
        return "absent"
    if not isinstance(leaf, dict):
        return repr(leaf)
    return f"{leaf.get('dtype')} {leaf.get('shape')}"
