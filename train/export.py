"""The result of a run: `RUN_DIR/weights`, a checkpoint of our own format with the tokenizer.

The arrays of a pod lie on the devices of many processes, and no host need have room for them all.
So every process first saves its parts as a training checkpoint without an optimiser, and process 0
then converts that as `llama-jax convert` would, a tensor at a time, reading back what it wrote.
"""

import logging
import shutil
from pathlib import Path

from llama_jax.checkpoints.convert import convert
from llama_jax.checkpoints.training_layout import (
    FINAL_WEIGHTS_FOLDER,
    PARAMS,
)
from llama_jax.config import ModelConfig
from llama_jax.model import Params
from train.checkpointing import Checkpointer
from train.config import CheckpointConfig
from train.process_zero import on_process_zero
from train.progress import Progress
from train.run_tokenizer import copy_tokenizer

_log = logging.getLogger(__name__)
_GATHERING_FOLDER = f"{FINAL_WEIGHTS_FOLDER}.sharded"


def export_weights(
    run_folder: str | Path, model_config: ModelConfig, params: Params, tokenizer_path: str | Path
) -> Path:
    """Writes `run_folder/weights` and returns it; weights that are there are replaced when the new
    ones are whole. All processes call it, and return when it is done.

    Args:
      params: layers stacked, in the dtypes to be written; of several processes, global arrays.
      tokenizer_path: a folder or file that `load_tokenizer` knows.

    Raises `OSError` naming the folder, for a full disk say.
    """
    run_folder = Path(run_folder)
    gathering = run_folder / _GATHERING_FOLDER
    on_process_zero(lambda: _remove(gathering))  # what a killed export left
    checkpointer = Checkpointer(gathering, CheckpointConfig(every_steps=1, keep=1))
    checkpointer.save({PARAMS: params}, Progress(), model_config)
    checkpointer.close()
    copy_tokenizer(gathering, tokenizer_path)
    destination = run_folder / FINAL_WEIGHTS_FOLDER

    def gather() -> None:
        convert(gathering, destination, to="orbax", overwrite=True, quiet=True, say=_log.info)
        _remove(gathering)

    on_process_zero(gather)
    return destination


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
