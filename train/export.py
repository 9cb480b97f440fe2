"""The result of a run: `RUN_DIR/weights`, a checkpoint of our own format with the tokenizer.

The arrays of a pod lie on the devices of many processes, and no host need have room for them all.
So every process first saves its parts as a training checkpoint without an optimiser, and process 0
then has `llama-jax convert` make one of it, a tensor at a time. That runs as a process of its own,
which is not part of the job: in the job's, Orbax would wait for the others to write with it.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from llama_jax.checkpoints.training_layout import (
    FINAL_WEIGHTS_FOLDER,
    PARAMS,
    STEP_DIGITS,
    TOKENIZER_FOLDER,
)
from llama_jax.config import ModelConfig
from llama_jax.errors import InputError
from llama_jax.model import Params
from train.checkpointing import Checkpointer
from train.config import CheckpointConfig
from train.process_zero import on_process_zero
from train.progress import Progress
from train.run_tokenizer import copy_tokenizer

_GATHERING_FOLDER = f"{FINAL_WEIGHTS_FOLDER}.sharded"


def export_weights(run_folder: str | Path, model_config: ModelConfig, params: Params) -> Path:
    """Writes `run_folder/weights`, with the tokenizer that the run keeps, and returns it; weights
    that are there are replaced when the new ones are whole. All processes call it, and return when
    it is done.

    Args:
      params: layers stacked, in the dtypes to be written; of several processes, global arrays.

    Raises `OSError` or `InputError` naming the folder, for a full disk say.
    """
    run_folder = Path(run_folder)
    gathering = run_folder / _GATHERING_FOLDER
    on_process_zero(lambda: _remove(gathering))  # what a killed export left
    checkpointer = Checkpointer(gathering, CheckpointConfig(every_steps=1, keep=1))
    checkpointer.save({PARAMS: params}, Progress(), model_config)
    checkpointer.close()
    copy_tokenizer(gathering, run_folder / TOKENIZER_FOLDER)
    destination = run_folder / FINAL_WEIGHTS_FOLDER

    def gather() -> None:
        options = ("--to", "orbax", "--overwrite", "--quiet")
        run_command("convert", str(gathering), str(destination), *options, writes=destination)
        _remove(gathering)

    on_process_zero(gather)
    return destination


def set_aside_weights(run_folder: Path, step: int) -> None:
    """Renames the final weights of a run that goes on after all from `step`: they are no longer
    what the folder stands for."""
    if (weights := run_folder / FINAL_WEIGHTS_FOLDER).exists():
        weights.rename(run_folder / f"{FINAL_WEIGHTS_FOLDER}_{step:0{STEP_DIGITS}}")


def run_command(*arguments: str, writes: Path) -> None:
    """A command of `llama-jax` in a process of its own, on the host.

    Raises `InputError` with its complaint, naming the folder that it writes.
    """
    run = subprocess.run(
        [sys.executable, "-m", "llama_jax", *arguments],
        env=os.environ | {"JAX_PLATFORMS": "cpu"},  # the accelerators are the job's
        capture_output=True,
        text=True,
    )
    if run.returncode:
        said = run.stderr.splitlines() or [f"ended with code {run.returncode}"]
        raise InputError(f"{writes}: weights not written: {said[-1].removeprefix('error: ')}")


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
