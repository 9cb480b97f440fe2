"""Weights that a run begins with, or compares with: a checkpoint of any format, onto the mesh."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from llama_jax.checkpoints.dequantized import refuse_quantized
from llama_jax.checkpoints.formats import open_source
from llama_jax.checkpoints.interface import TensorSource
from llama_jax.checkpoints.load import load_params
from llama_jax.checkpoints.quantized_source import abstract_stacked_params
from llama_jax.config import ModelConfig
from llama_jax.errors import InputError
from llama_jax.model import Params, init_params, refuse_reward_model
from llama_jax.quantization.quantized_tensor import WeightFormat
from sharding.placement import param_shardings, quantized_shardings
from train.config import RunConfig

# Stages may set these.
_MAY_DIFFER = ("rope_theta", "rope_scaling", "context_length")


def initial_params(run: RunConfig, mesh: Mesh) -> Params:
    """`run.initial_weights` on `mesh`, each device reading its own part.

    A reward model may begin with the weights of a policy: it takes all but the head, and a new
    reward head of `run.seed`.

    Raises `InputError` if they are quantised or of another model.
    """
    source = open_source(run.initial_weights)
    refuse_quantized(source, "training changes weights by less than a step of it")
    from_policy = run.model.reward_head and not source.config.reward_head
    _check_model(source, dataclasses.replace(run.model, reward_head=source.config.reward_head))
    params = _load(source, mesh, run.param_dtype)
    if not from_policy:
        if not run.model.reward_head:
            refuse_reward_model(source.config, run.initial_weights)
        return params
    params.pop("head", None)
    return {**params, "reward_head": _new_reward_head(run, mesh)}


def reference_params(
    path: str, model: ModelConfig, mesh: Mesh, *, dtype: str, is_teacher: bool
) -> Params:
    """The policy at `path` on `mesh`, which must be of `model`, with float weights as `dtype`.

    Args:
      is_teacher: it is run as its own checkpoint says, and not with the RoPE of a stage.

    Raises `InputError` if it is not, or is quantised.
    """
    source = open_source(path)
    refuse_reward_model(source.config, path)
    refuse_quantized(source, "its log-probabilities would be those of another policy")
    _check_model(source, model, ("context_length",) if is_teacher else _MAY_DIFFER)
    return _load(source, mesh, dtype)


@functools.lru_cache(maxsize=1)
def base_in_memory(run: RunConfig, mesh: Mesh) -> Params:
    """`run.initial_weights` on `mesh`, as they lie under adapters: float weights in the dtype that
    they are multiplied in, quantised ones as they are.

    Raises `InputError` if they are of another model, or of FP8, whose products have no gradient.
    """
    source = open_source(run.initial_weights)
    refuse_reward_model(source.config, run.initial_weights)
    _check_model(source, run.model)
    formats = {spec.format for spec in source.tensors.values()} - {None}
    if WeightFormat.FP8 in formats:
        raise InputError(
            f"{run.initial_weights}: its products in FP8 have no gradient; quantize it with "
            "--recipe int8 or int4, or give float weights"
        )
    shardings = param_shardings(source.config, mesh)
    if formats:
        shardings = quantized_shardings(
            abstract_stacked_params(source.config, source.tensors), shardings
        )
    return load_params(source, dtype=run.compute_dtype, shardings=shardings)


def _load(source: TensorSource, mesh: Mesh, dtype: str) -> Params:
    return load_params(source, dtype=dtype, shardings=param_shardings(source.config, mesh))


def _check_model(
    source: TensorSource, model: ModelConfig, may_differ: tuple[str, ...] = _MAY_DIFFER
) -> None:
    for field in dataclasses.fields(ModelConfig):
        there, here = getattr(source.config, field.name), getattr(model, field.name)
        if there != here and field.name not in may_differ:
            raise InputError(
                f"{source.path}: its model has {field.name} {there}, the run's has {here}; "
                "give the weights of the same model"
            )


def _new_reward_head(run: RunConfig, mesh: Mesh) -> jax.Array:
    """Of `run.seed`; the rest of a new model is never made."""
    dtype = jnp.dtype(run.param_dtype)
    return jax.jit(
        lambda key: init_params(run.model, key, dtype=dtype)["reward_head"],
        out_shardings=param_shardings(run.model, mesh)["reward_head"],
    )(jax.random.key(run.seed))
