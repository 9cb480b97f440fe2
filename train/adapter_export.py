"""The result of a LoRA run: `RUN_DIR/adapter`, as PEFT stores one, and `RUN_DIR/weights`, the base
with the adapter added."""

import shutil
from pathlib import Path

import jax
import numpy as np

from llama_jax.checkpoints.asset_files import write_assets
from llama_jax.checkpoints.peft_adapter import MODULES, write_adapter
from llama_jax.checkpoints.training_layout import FINAL_WEIGHTS_FOLDER, TOKENIZER_FOLDER
from llama_jax.model import Params
from sharding.placement import replicated
from train.config import RunConfig
from train.export import run_command
from train.job import Job
from train.lora import DOWN, TARGETS, UP
from train.process_zero import on_process_zero
from train.run_tokenizer import tokenizer_assets

ADAPTER_FOLDER = "adapter"


def export_adapter(job: Job, params: Params) -> None:
    """Writes both folders; what is there is replaced. All processes call it.

    Raises `OSError` or `InputError` naming the folder.
    """
    everywhere = replicated(job.mesh)
    whole = jax.jit(lambda params: params, out_shardings=everywhere)(params)
    on_process_zero(lambda: _write(job.run, job.folder, jax.device_get(whole)))


def _write(run: RunConfig, folder: Path, params: Params) -> None:
    new, place = folder / f".{ADAPTER_FOLDER}", folder / ADAPTER_FOLDER
    for path in (new, place):
        shutil.rmtree(path, ignore_errors=True)
    write_adapter(
        new,
        _matrices(run, params),
        r=run.lora.rank,
        lora_alpha=run.lora.alpha,
        target_modules=[MODULES[name] for name in run.lora.targets],
        base_model_name_or_path=run.initial_weights,
    )
    new.rename(place)
    weights = folder / FINAL_WEIGHTS_FOLDER
    arguments = [run.initial_weights, str(place), str(weights)]
    run_command("merge", *arguments, "--to", "orbax", "--overwrite", "--quiet", writes=weights)
    # The base's own may know no chat, nor where its turns end.
    write_assets(weights, tokenizer_assets(folder / TOKENIZER_FOLDER))


def _matrices(run: RunConfig, params: Params) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Our name of each changed weight -> `[rank, in]` and `[out, rank]`."""
    matrices, rank = {}, run.lora.rank
    for name in run.lora.targets:
        path, _ = TARGETS[name]
        node = params["blocks"]
        for key in path:
            node = node[key]
        for layer, (down, up) in enumerate(zip(node[DOWN], node[UP], strict=True)):
            where = ".".join(("blocks", str(layer), *path))
            matrices[where] = down.reshape(rank, -1), up.reshape(-1, rank)
    return matrices
