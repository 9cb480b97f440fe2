"""Names that both sides of a training run's folder agree on: `train` writes, `llama_jax` reads.

    RUN_DIR/
      checkpoints/
        000100/                  appears by a rename, when it is whole
          description/training.json
          state/                 an Orbax tree (Zarr 3 in OCDBT) of leaves by their paths
      tokenizer/                 copies of the tokenizer's files
      weights/                   the final weights, a checkpoint of our own format

A leaf's name is its path in the training state, such as `params.blocks.attention.query`; layers are
stacked, `[L, ...]`, and a chunk of the file never spans two of them, so that one can be read alone.
"""

from pathlib import Path

from llama_jax.checkpoints.orbax_layout import WEIGHTS_FOLDER

__all__ = ["WEIGHTS_FOLDER"]

CHECKPOINTS_FOLDER = "checkpoints"
TOKENIZER_FOLDER = "tokenizer"
STATE_ITEM = "state"
DESCRIPTION_ITEM = "description"
TRAINING_FILE = "training.json"
FORMAT_VERSION = 1
STEP_DIGITS = 6
PARAMS = "params"


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
