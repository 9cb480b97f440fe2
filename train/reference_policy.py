"""The model that a stage's loss compares with, a reference policy or a teacher: which one it is,
and its weights."""

import functools
import hashlib
import json

from jax.sharding import Mesh

from llama_jax.checkpoints.fingerprint import model_fingerprint
from llama_jax.checkpoints.formats import open_source
from llama_jax.config import ModelConfig
from llama_jax.model import Params
from train.config import RunConfig
from train.initial_weights import reference_params


def reference_path(run: RunConfig, stage: int) -> str | None:
    """The checkpoint of stage `stage`'s reference model."""
    return run.stages[stage].reference or run.initial_weights


def load_reference(run: RunConfig, stage: int, mesh: Mesh) -> Params:
    """Its weights on `mesh`, in the dtype that they are multiplied in."""
    return _load(reference_path(run, stage), *_kind(run, stage), mesh, run.compute_dtype)


def reference_in_memory(run: RunConfig, stage: int, mesh: Mesh) -> Params:
    """The same, loaded once, though every evaluation asks for them, and let go when a stage has
    another."""
    return _kept(reference_path(run, stage), *_kind(run, stage), mesh, run.compute_dtype)


def _kind(run: RunConfig, stage: int) -> tuple[ModelConfig, bool]:
    """What it must be, and whether it is a teacher."""
    teacher = run.stages[stage].reference_model
    return teacher or run.model, teacher is not None


def _load(path: str, model: ModelConfig, is_teacher: bool, mesh: Mesh, dtype: str) -> Params:
    return reference_params(path, model, mesh, dtype=dtype, is_teacher=is_teacher)


_kept = functools.lru_cache(maxsize=1)(_load)


@functools.lru_cache
def reference_sha256(
    path: str, model: ModelConfig, compute_dtype: str, matmul: str, key: tuple[str | float, ...]
) -> str:
    """What its log-probabilities depend on besides the data: the weights at `path`, the model that
    they are run as, the precision and what the loss asks for."""
    weights = model_fingerprint(open_source(path).path)
    text = json.dumps([weights, model.to_dict(), compute_dtype, matmul, key])
    return hashlib.sha256(text.encode()).hexdigest()
