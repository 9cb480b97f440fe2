"""Real training steps, measured: the step of the loop on one batch, again and again.

Steps follow one another as in the loop: the next is handed to the devices before the result of the
last is waited for. It needs nothing but what a step needs (JAX, flax, optax), so that it runs on a
machine that has no more.
"""

import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from llama_jax.errors import InputError
from llama_jax.model import Params
from sharding.mesh import make_mesh
from sharding.placement import batch_sharding, init_sharded_params, on_mesh
from train.config import RunConfig
from train.data.row import Row
from train.job import make_network
from train.losses.cross_entropy import CrossEntropy
from train.losses.loss import Loss
from train.optimizer import make_optimizer
from train.state import abstract_state, new_state
from train.step import make_train_step
from train.throughput import Throughput

# Small enough to stay near the first loss, large enough that every parameter moves.
LEARNING_RATE = 1e-5
WARM_UP = 2  # steps that are not counted


def measure_training(
    run: RunConfig,
    batch: dict[str, np.ndarray],
    *,
    num_steps: int,
    loss: Loss = CrossEntropy(),  # noqa: B008
    params: Params | None = None,
    devices: Sequence[jax.Device] | None = None,
) -> dict[str, Any]:
    """Compiles the step of `run` and runs it `num_steps` times, after two that are not counted.

    Args:
      run: model, mesh, precision, remat policy, optimiser; its stages are not looked at.
      batch: `[A, B, T]` of A micro-batches, as `train/step.py` takes it; every step has it.
      num_steps: at least 1.
      loss: what is minimised, without frozen arrays.
      params: weights to start from; random ones of `run.seed` if None.
      devices: that the mesh is made of, all if None.

    Returns:
      `seconds` of every step, `step_seconds_p50`, what `Throughput` gives for it, `losses` of all
      steps, `compile_seconds`, `devices` and `device_kind`, `memory_bytes` of one
      device as the compiler planned it (`arguments`, `temporary`, `total`), and, where the device
      says so, `device_peak_bytes`.

    Raises `InputError` if the rows do not divide over the devices.
    """
    mesh = make_mesh(run.mesh, devices)
    devices = list(mesh.devices.flat)
    shape = batch["tokens"].shape
    optimizer = make_optimizer(run.optimizer)
    with on_mesh(mesh):
        sharding = batch_sharding(mesh)
        try:
            sharding.shard_shape(shape)
        except ValueError:
            raise InputError(
                f"{shape[1]} rows of a micro-batch do not divide over mesh {dict(mesh.shape)}"
            ) from None
        dtype = jnp.dtype(run.param_dtype)
        abstract = abstract_state(run.model, optimizer, mesh, dtype=dtype)
        shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
        if params is None:
            params = init_sharded_params(run.model, jax.random.key(run.seed), mesh, dtype=dtype)
        else:
            params = jax.device_put(params, shardings.params, may_alias=False)
        make_state = jax.jit(
            lambda params: new_state(params, optimizer), out_shardings=shardings, donate_argnums=0
        )
        state = make_state(params)
        step = make_train_step(
            make_network(run, run.model, mesh),
            run.optimizer,
            lambda step: jnp.float32(LEARNING_RATE),
            loss=loss,
            state=abstract,
        )
        placed = jax.device_put(batch, sharding)
        began = time.perf_counter()
        compiled = step.lower(state, {}, placed).compile()
        compile_seconds = time.perf_counter() - began

        losses, times, earlier = [], [], None
        for _ in range(WARM_UP + num_steps):
            state, metrics = compiled(state, {}, placed)
            if earlier is not None:
                losses.append(float(earlier["loss"]))
                times.append(time.perf_counter())
            earlier = metrics
        losses.append(float(earlier["loss"]))
        times.append(time.perf_counter())

    seconds = np.diff(times)[WARM_UP - 1 :]
    middle = float(np.median(seconds))
    result = {
        "seconds": seconds.tolist(),
        "step_seconds_p50": middle,
        **Throughput(run.model, row_length=shape[-1], devices=devices).values(
            np.prod(shape).item(), middle
        ),
        "losses": losses,
        "compile_seconds": compile_seconds,
        "devices": len(devices),
        "device_kind": devices[0].device_kind,
        "memory_bytes": _planned_memory(compiled),
    }
    if stats := devices[0].memory_stats():
        result["device_peak_bytes"] = stats["peak_bytes_in_use"]
    return result


def _planned_memory(compiled: jax.stages.Compiled) -> dict[str, int]:
    """Bytes of one device; what is donated counts once."""
    analysis = compiled.memory_analysis()
    arguments, temporary = analysis.argument_size_in_bytes, analysis.temp_size_in_bytes
    results = analysis.output_size_in_bytes - analysis.alias_size_in_bytes
    return {
        "arguments": arguments,
        "temporary": temporary,
        "total": arguments + temporary + results,
    }


def random_batch(
    vocab_size: int, *, rows: int, row_length: int, micro_batches: int = 1, seed: int = 0
) -> dict[str, np.ndarray]:
    """Random token ids as one document a row, the most work that attention can have: a batch
    `[A, rows / A, T]`."""
    shape = (micro_batches, rows // micro_batches, row_length + 1)
    tokens = np.random.default_rng(seed).integers(0, vocab_size, shape, np.int32)
    return Row(tokens, np.ones(shape, np.int32)).arrays()
