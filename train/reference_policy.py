"""The policy that a stage's loss compares with: which one it is, and its weights."""

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
    """The checkpoint of stage `stage`'s reference policy."""
    return run.stages[stage].reference or run.initial_weights


@functools.lru_cache(maxsize=1)
def reference_in_memory(path: str, model: ModelConfig, mesh: Mesh, dtype: str) -> Params:
    """Its weights on `mesh`: loaded once, though every evaluation asks for them, and let go when a
    stage has another."""
    return reference_params(path, model, mesh, dtype=dtype)


@functools.lru_cache
def reference_sha256(path: str, model: ModelConfig, compute_dtype: str, matmul: str) -> str:
    """What its log-probabilities depend on besides the data: the weights at `path`, the model that
    they are run as and the precision."""
    weights = model_fingerprint(open_source(path).path)
    key = json.dumps([weights, model.to_dict(), compute_dtype, matmul])
    return hashlib.sha256(key.encode()).hexdigest()
