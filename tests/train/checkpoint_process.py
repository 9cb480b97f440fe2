"""One process of a small job, run by tests: python checkpoint_process.py COMMAND RUN_DIR ...

It makes its state from a formula, so that any number of processes has the same.
"""

import os
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from llama_jax.config import TINY
from llama_jax.model import abstract_params
from train.checkpointing import Checkpointer
from train.config import CheckpointConfig
from train.export import export_weights
from train.preemption import Preemption
from train.progress import Progress
from train.run_tokenizer import copy_tokenizer


def abstract_state(num_values: int = 64):
    """Shapes with shardings over all devices: the largest dimension that they divide is split."""
    mesh = jax.make_mesh((jax.device_count(),), ("all",), axis_types=(jax.sharding.AxisType.Auto,))

    def place(leaf):
        dims = [d for d in range(leaf.ndim) if leaf.shape[d] % jax.device_count() == 0]
        split = max(dims, key=lambda d: leaf.shape[d], default=None)
        spec = PartitionSpec(*("all" if d == split else None for d in range(leaf.ndim)))
        sharding = NamedSharding(mesh, spec)
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    state = {
        "params": abstract_params(TINY),
        "moment": jax.ShapeDtypeStruct((num_values,), jnp.bfloat16),
        "step": jax.ShapeDtypeStruct((), jnp.int32),
    }
    return jax.tree.map(place, state)


def make_state(abstract, seed: int):
    """Global arrays; each device makes its own part."""

    def fill(leaf, index):
        whole = np.arange(int(np.prod(leaf.shape)), dtype=np.float32).reshape(leaf.shape)
        return (whole[index] * 0.37 + seed).astype(leaf.dtype)

    return jax.tree.map(
        lambda leaf: jax.make_array_from_callback(
            leaf.shape, leaf.sharding, lambda index: fill(leaf, index)
        ),
        abstract,
    )


def assert_state(state, seed: int):
    """Bit for bit, on the devices of this process."""
    for restored, made in zip(
        jax.tree.leaves(state), jax.tree.leaves(make_state(state, seed)), strict=True
    ):
        for a, b in zip(restored.addressable_shards, made.addressable_shards, strict=True):
            assert np.asarray(a.data).tobytes() == np.asarray(b.data).tobytes()


def save(run, *, step, num_values=64):
    """Saves `step` and exports the weights."""
    state = make_state(abstract_state(num_values), step)
    checkpointer = Checkpointer(run, CheckpointConfig(every_steps=1, keep=3))
    assert checkpointer.save(state, Progress(step=step, tokens=7 * step), TINY)
    checkpointer.close()


def export(run, *, step, tokenizer):
    state = make_state(abstract_state(), step)
    copy_tokenizer(run, tokenizer)
    export_weights(run, TINY, state["params"])


def restore(run, *, step):
    checkpointer = Checkpointer(run, CheckpointConfig(every_steps=1, keep=3))
    state, progress = checkpointer.restore(abstract_state(), model_config=TINY)
    assert progress == Progress(step=step, tokens=7 * step)
    assert_state(state, step)
    checkpointer.close()


def save_slowly(run):
    """Saves step 1, small and to its end; then begins step 2, large, and waits to be killed."""
    save(run, step=1)
    state = make_state(abstract_state(40_000_000), 2)
    checkpointer = Checkpointer(run, CheckpointConfig(every_steps=1, keep=3))
    print("begins", flush=True)
    checkpointer.save(state, Progress(step=2), TINY)
    time.sleep(600)


def save_on_a_full_disk(run):
    """Files may have a megabyte: to the writer, that is a disk that runs full."""
    import resource

    save(run, step=1)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))
    checkpointer = Checkpointer(run, CheckpointConfig(every_steps=1, keep=1))
    state = make_state(abstract_state(8_000_000), 2)
    checkpointer.save(state, Progress(step=2), TINY)
    try:
        checkpointer.wait()
    except OSError as error:
        print("OSError", error.filename, error.strerror, flush=True)
    os._exit(0)


def wait_for_preemption():
    with Preemption() as preemption:
        for step in range(100_000):
            if step == 3:
                print("trains", flush=True)
            if preemption.requested(step):
                print("saves at", step, flush=True)
                return
            time.sleep(0.01)


def main():
    command, run, process, num_processes, port, *rest = sys.argv[1:]
    if int(num_processes) > 1:
        jax.distributed.initialize(f"localhost:{port}", int(num_processes), int(process))
    if command == "save, export":
        save(Path(run), step=int(rest[0]))
        export(Path(run), step=int(rest[0]), tokenizer=rest[1])
    elif command == "restore":
        restore(Path(run), step=int(rest[0]))
    elif command == "save slowly":
        save_slowly(Path(run))
    elif command == "save on a full disk":
        save_on_a_full_disk(Path(run))
    elif command == "wait for preemption":
        wait_for_preemption()
    else:
        raise SystemExit(f"no command {command!r}")


if __name__ == "__main__":
    main()
