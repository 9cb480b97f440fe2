"""Saving a run and going on from what was saved: Orbax, asynchronous, for any number of processes.

A save copies the arrays to the host, returns, and writes while training goes on. It writes into a
folder with a temporary name, which is renamed when everything is in it: a save that is killed, or
finds the disk full, leaves the checkpoints before it as they were, and what it left is removed by
the next run. Every process writes its own parts, process 0 the rest, to a disk that all share.

Where a run starts, in this order:

1. the latest checkpoint in its own folder: arrays and `Progress`, so it continues to the same bits;
2. else `initial_weights`, a checkpoint of any format, with a new optimiser state;
3. else random weights from the seed.

So a job that was killed is started again with the same command.

Restoring asks for shapes, dtypes and shardings, and each device reads its own part: the mesh may be
another than the one that saved.
"""

import logging
from collections.abc import Collection, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax

from llama_jax.checkpoints.disk_errors import as_os_error
from llama_jax.checkpoints.ocdbt_files import check_ocdbt_files
from llama_jax.checkpoints.training_layout import (
    CHECKPOINTS_FOLDER,
    DESCRIPTION_ITEM,
    PARAMS,
    STATE_ITEM,
    STEP_DIGITS,
    TRAINING_FILE,
    saved_steps,
    step_folder,
)
from llama_jax.config import ModelConfig
from llama_jax.errors import InputError
from train.checkpoint_description import describe, leaf_names, read_metrics, read_progress
from train.config import CheckpointConfig
from train.process_zero import on_process_zero
from train.progress import Progress
from train.retention import Retention

# Orbax logs an error from every thread that it passes, and then raises it.
_LOGGERS = ("absl", "asyncio")


class Checkpointer:
    """The checkpoints of one run, below `run_folder/checkpoints`. All processes make one and call
    it alike.

    Args:
      run_folder: the run's folder; created.
      config: how many checkpoints are kept.

    Raises `OSError` naming the folder if it cannot be written.
    """

    def __init__(self, run_folder: str | Path, config: CheckpointConfig):
        import orbax.checkpoint as ocp

        for name in _LOGGERS:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        self._run_folder = Path(run_folder).absolute()
        self._folder = self._run_folder / CHECKPOINTS_FOLDER
        self._retention = Retention(config)
        self._folder.mkdir(parents=True, exist_ok=True)
        policies = ocp.checkpoint_managers
        with self._errors_name_the_folder():
            self._manager = ocp.CheckpointManager(
                self._folder,
                options=ocp.CheckpointManagerOptions(
                    step_format_fixed_length=STEP_DIGITS,
                    cleanup_tmp_directories=True,
                    save_decision_policy=policies.FixedIntervalPolicy(1),  # the loop decides
                    preservation_policy=self._retention,
                    save_root_metadata=False,
                ),
                item_handlers={
                    # Random mantissas do not shrink, and zstd is slower than a disk.
                    STATE_ITEM: ocp.PyTreeCheckpointHandler(use_zarr3=True, use_compression=False),
                    DESCRIPTION_ITEM: ocp.JsonCheckpointHandler(TRAINING_FILE),
                },
            )
        for step in self.steps():
            self._retention.note(step, read_metrics(step_folder(self._run_folder, step)))

    def save(
        self,
        state: Any,
        progress: Progress,
        model_config: ModelConfig,
        metrics: Mapping[str, float] | None = None,
    ) -> bool:
        """Begins to save `state` as the checkpoint of `progress.step`; it may be donated after.

        Waits for the save before, and raises what went wrong with that one.

        Args:
          state: any pytree of arrays; those of several processes must be global.
          metrics: evaluation losses at this step, by set, in nats a token.

        Returns whether it did: a step that is there already is not saved again.
        Raises `OSError` naming the folder, for a full disk say.
        """
        import orbax.checkpoint as ocp

        if progress.step in self._manager.all_steps():
            return False
        leaves = dict(zip(leaf_names(state), jax.tree.leaves(state), strict=True))
        metrics = dict(metrics or {})
        description = describe(state, progress, model_config, metrics)
        self._retention.note(progress.step, metrics)
        save_args = {name: ocp.SaveArgs(shard_axes=_chunked_axes(name)) for name in leaves}
        with self._errors_name_the_folder():
            return self._manager.save(
                progress.step,
                force=True,
                args=ocp.args.Composite(
                    **{
                        STATE_ITEM: ocp.args.PyTreeSave(leaves, save_args=save_args),
                        DESCRIPTION_ITEM: ocp.args.JsonSave(description),
                    }
                ),
            )

    def pin(self, steps: Collection[int]) -> None:
        """From now on, the checkpoints of `steps` and of no others are kept whatever comes after
        them, as an average is to be made of them. Not remembered by the next run: it pins its own.
        """
        self._retention.pinned = frozenset(steps)

    def latest_step(self) -> int | None:
        """The step to go on from, or None if nothing was saved."""
        return self._manager.latest_step()

    def best_step(self) -> int | None:
        """The step with the lowest loss of `best_set`, or None if none has one."""
        return self._retention.best(self.steps())

    def steps(self) -> list[int]:
        """The steps that are saved or being saved, ascending."""
        return sorted(self._manager.all_steps())

    def restore(
        self, abstract_state: Any, step: int | None = None, model_config: ModelConfig | None = None
    ) -> tuple[Any, Progress]:
        """The state and the progress that were saved, by default the latest.

        Args:
          abstract_state: a pytree of `jax.ShapeDtypeStruct` with `sharding`, or of arrays; each
            device reads its part of what these say.
          model_config: if given, the model must be that.

        Raises `InputError` if there is none, it is damaged, or it is of another model or optimiser.
        """
        import orbax.checkpoint as ocp

        self.wait()
        step = self.latest_step() if step is None else step
        if step is None or step not in self._manager.all_steps():
            there = ", ".join(map(str, self.steps())) or "none"
            wanted = "" if step is None else f" of step {step}"
            raise InputError(f"{self._folder}: no checkpoint{wanted}; there are: {there}")
        folder = step_folder(self._run_folder, step)
        progress = read_progress(folder, abstract_state, model_config)
        if progress.step != step:
            raise InputError(f"{folder}: was saved at step {progress.step}; give it its name back")
        names, leaves = leaf_names(abstract_state), jax.tree.leaves(abstract_state)
        asked = {
            name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
            for name, leaf in zip(names, leaves, strict=True)
        }
        restore_args = {
            name: ocp.ArrayRestoreArgs(
                sharding=leaf.sharding, global_shape=leaf.shape, dtype=leaf.dtype
            )
            for name, leaf in asked.items()
        }
        try:
            on_process_zero(lambda: check_ocdbt_files(folder / STATE_ITEM))
            restored = self._manager.restore(
                step,
                args=ocp.args.Composite(
                    **{STATE_ITEM: ocp.args.PyTreeRestore(asked, restore_args=restore_args)}
                ),
            )[STATE_ITEM]
        except Exception as error:  # whatever tensorstore and Orbax make of damaged files
            raise InputError(self._damaged(folder, step, error)) from error
        tree = jax.tree.structure(abstract_state)
        return jax.tree.unflatten(tree, [restored[name] for name in names]), progress

    def wait(self) -> None:
        """Until what was begun is saved. Raises `OSError` naming the folder if that failed."""
        with self._errors_name_the_folder():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits and ends Orbax's threads. Raises as `wait`."""
        with self._errors_name_the_folder():
            self._manager.close()

    def _damaged(self, folder: Path, step: int, error: Exception) -> str:
        earlier = [saved for saved in saved_steps(self._run_folder) if saved < step]
        back = f"go on from step {earlier[-1]}" if earlier else "begin anew"
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        return f"{folder}: damaged ({reason}); remove this folder to {back}"

    @contextmanager
    def _errors_name_the_folder(self):
        """What the operating system refuses becomes an `OSError` that the front door can print."""
        try:
            yield
        except Exception as error:
            if (system_error := as_os_error(error, str(self._folder))) is None:
                raise
            raise system_error from error


def _chunked_axes(name: str) -> tuple[int, ...]:
    """The axes that are cut at every index: that of the layers, where they are stacked, so that a
    reader of one layer does not read them all."""
    return (0,) if name.startswith(f"{PARAMS}.blocks.") else ()
