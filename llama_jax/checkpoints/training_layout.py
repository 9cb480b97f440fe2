"""Names that both sides of a training run's folder agree on: `train` writes, `llama_jax` reads.

    RUN_DIR/
      checkpoints/
        000100/                  appears by a rename, when it is whole
          description/training.json
          state/                 an Orbax tree (Zarr 3 in OCDBT) of leaves by their paths
      tokenizer/                 copies of the tokenizer's files
      weights/                   the final weights, a checkpoint of our own format; renamed to
                                 weights_000100/ when the run goes on after all from that step

A leaf's name is its path in the training state, such as `params.blocks.attention.query`; layers are
stacked, `[L, ...]`, and a chunk of the file never spans two of them, so that one can be read alone.
"""

from pathlib import Path
from typing import Any

from llama_jax.checkpoints.orbax_layout import DESCRIPTION_FILE
from llama_jax.config import ModelConfig
from llama_jax.errors import InputError
from llama_jax.json_file import read_json

CHECKPOINTS_FOLDER = "checkpoints"
TOKENIZER_FOLDER = "tokenizer"
STATE_ITEM = "state"
DESCRIPTION_ITEM = "description"
TRAINING_FILE = "training.json"
FORMAT_VERSION = 1
STEP_DIGITS = 6
PARAMS = "params"
FINAL_WEIGHTS_FOLDER = "weights"
TEMPORARY_MARK = ".orbax-checkpoint-tmp"  # in the name of a folder that Orbax is writing


def step_folder(run_folder: Path, step: int) -> Path:
    """Where the checkpoint of step `step` lies."""
    return run_folder / CHECKPOINTS_FOLDER / f"{step:0{STEP_DIGITS}}"


def saved_steps(run_folder: Path) -> list[int]:
    """The steps whose checkpoints are whole, ascending. A folder with a temporary name is not."""
    folder = run_folder / CHECKPOINTS_FOLDER
    if not folder.is_dir():
        return []
    names = [path.name for path in folder.iterdir() if path.is_dir()]
    return sorted(
        int(name)
        for name in names
        if name.isascii() and name.isdigit() and step_folder(run_folder, int(name)).name == name
    )


def finished_weights(run_folder: Path) -> Path | None:
    """The final weights of a run that has come to its end. They are what the folder of the run
    stands for: the average of its last checkpoints may differ from the latest."""
    weights = run_folder / FINAL_WEIGHTS_FOLDER
    is_whole = (weights / DESCRIPTION_FILE).is_file()
    return weights if is_whole and saved_steps(run_folder) else None


def read_description(folder: Path) -> tuple[ModelConfig, dict[str, Any]]:
    """The model of the checkpoint `folder`, and all that its JSON says.

    Raises `InputError` if it is missing, damaged or of another version.
    """
    file = folder / DESCRIPTION_ITEM / TRAINING_FILE
    fields = read_json(file)
    if fields.get("format_version") != FORMAT_VERSION:
        raise InputError(
            f"{file}: format_version {fields.get('format_version')!r} is not {FORMAT_VERSION}, the "
            "one known here; use the llama-jax that wrote it"
        )
    config = fields.get("config")
    if not isinstance(config, dict):
        raise InputError(f"{file}: config is missing; take another checkpoint")
    try:
        return ModelConfig.from_dict(config), fields
    except ValueError as error:  # an InputError is one
        raise InputError(f"{file}: {error}") from error
