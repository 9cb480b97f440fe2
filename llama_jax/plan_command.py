"""`llama-jax plan`: which of the two rooms that compile a plan, by what is to be planned."""

import importlib
import inspect
from pathlib import Path

from llama_jax.config import PUBLISHED_MODELS
from llama_jax.errors import InputError

_TRAIN = ("train.plan.command", "plan_run")
_INFER = ("infer.plan.command", "plan_model")


def plan(*arguments: str) -> int:
    """Compiles a program for a machine that is not here: bytes, work, traffic, predicted time.

    llama-jax plan RUN --topology T [...]      the training step of any stage of a run
    llama-jax plan MODEL --topology T [...]    the engine's decode and prefill programs
    llama-jax plan RUN --help                  every option, and every field of the run

    RUN is what `llama-jax train` takes; MODEL is llama31_8b, llama31_70b, llama31_405b, llama32_1b,
    llama32_3b, or a checkpoint.
    Nothing runs, and no accelerator is needed: compilers are in `pip install '.[plan]'`. The exit
    code is 1 for what does not fit.

    Example: llama-jax plan pretrain_70b --topology v5p:4x4x4 --rows 128 --mesh.fsdp 64
      llama-jax plan llama31_405b --topology h100:8 --recipe fp8

    Args:
      arguments: what to plan, then options.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        print(inspect.getdoc(plan).split("\nArgs:")[0])
        return 0
    name, *rest = arguments
    if name.startswith("-"):
        raise InputError(f"the run or model comes first: llama-jax plan NAME {name} ...")
    # Both compilers are asked for by the name of the target, and no device is.
    import jax

    jax.config.update("jax_platforms", "cpu")
    module, function = _INFER if _is_model(name) else _TRAIN
    return getattr(importlib.import_module(module), function)(name, *rest)


def _is_model(name: str) -> bool:
    if name in PUBLISHED_MODELS:
        return True
    path = Path(name)
    if not path.exists() or path.suffix == ".py":
        return False
    # A checkpoint in Hugging Face's format has a config.json too, without stages.
    config = path / "config.json"
    return not (config.is_file() and '"stages"' in config.read_text(errors="replace"))
