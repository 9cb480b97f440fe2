"""Batches on the devices, read ahead of the step that needs them.

Grain reads whole steps in threads: step s of the stage is rows schedule.rows_before(s) and on, of
the mixture's sequence. Micro-batch a of a step with R rows has the R / A rows from number
a * R / A on. A process reads only the rows of its own devices, so what all of them hold together is
the same for any number of processes, and a run continues from any step on any number of them.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple, Protocol

import jax
import numpy as np
from jax.sharding import Sharding

from llama_jax.errors import InputError
from sharding.placement import rows_sharding

if TYPE_CHECKING:
    from train.data.batch_schedule import BatchSchedule

_MAX_THREADS = 16

# What the kind of row has, such as tokens, targets, segment_ids int32 and loss_mask bool [A, B, T].
Batch = dict[str, jax.Array]


class BatchRow(Protocol):
    """A row of any kind."""

    def arrays(self) -> Mapping[str, np.ndarray]:
        """What a batch has of it, by name. Of one data set all rows have the same names, shapes and
        dtypes; `tokens` `[T]` is among them."""
        ...


class RowSequence(Protocol):
    """Rows by number, such as a stage's `Mixture`; reading is safe from several threads at once.

    Attributes:
      row_length: T.
    """

    row_length: int

    def __getitem__(self, index: int) -> BatchRow: ...


class _HostRows(NamedTuple):
    """What this process reads of a step.

    Attributes:
      num_rows: of a micro-batch on all devices (B).
      rows: ascending numbers within a micro-batch of the rows that this process's devices hold.
      arrays: of a batch, `[A, len(rows), ...]` each.
    """

    num_rows: int
    rows: np.ndarray
    arrays: Mapping[str, np.ndarray]


class Loader(Iterator[Batch]):
    """The batches of steps `first_step` to `first_step + num_steps - 1` of a stage, in order.

    A batch has the arrays of its rows, stacked to `[A, B, ...]`. What a row has of each token,
    `[T, ...]`, is split as `sharding` says; of the rest, each device has its own rows whole.

    `close()` it, or use it in a `with`, to stop the threads before the last batch.
    """

    def __init__(
        self,
        mixture: RowSequence,
        schedule: "BatchSchedule",
        *,
        sharding: Sharding,
        first_step: int,
        num_steps: int,
        read_ahead: int = 4,
    ) -> None:
        """Args:
          mixture: the stage's sequence of rows.
          schedule: how many rows each step has, and into how many micro-batches A they are split.
          sharding: of arrays [A, B, T]; each device holds all A.
          first_step, num_steps: which steps of the stage.
          read_ahead: steps that are read before they are asked for; 0 reads none ahead.

        Raises `InputError` if rows or tokens do not divide among micro-batches and devices.
        """
        import grain

        self._mixture, self._schedule, self._sharding = mixture, schedule, sharding
        for entry in schedule.batch:
            self._check(entry.rows, entry.micro_batches)
        steps = grain.MapDataset.range(first_step, first_step + num_steps)
        num_threads = min(read_ahead, _MAX_THREADS)
        options = grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=read_ahead)
        self._steps = iter(steps.map(self._read).to_iter_dataset(options))

    def __next__(self) -> Batch:
        host_rows = next(self._steps)
        with jax.transfer_guard("allow"):  # a loop may forbid transfers; this is the one it wants
            return {
                name: self._place(host_rows, values) for name, values in host_rows.arrays.items()
            }

    def __enter__(self) -> "Loader":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Stops reading ahead; the loader is at its end."""
        self._steps.close()

    def _place(self, host_rows: _HostRows, values: np.ndarray) -> jax.Array:
        shape = (len(values), host_rows.num_rows, *values.shape[2:])
        is_of_tokens = shape[2:3] == (self._mixture.row_length,)
        sharding = self._sharding if is_of_tokens else rows_sharding(self._sharding)
        return jax.make_array_from_callback(shape, sharding, _Slices(host_rows.rows, values))

    def _check(self, num_rows: int, micro_batches: int) -> None:
        """Raises `InputError` if a step of `num_rows` rows cannot be split."""
        row_length = self._mixture.row_length
        num_parts, num_token_parts = _parts(self._sharding)
        if num_rows % (micro_batches * num_parts):
            raise InputError(
                f"batch: {num_rows} rows do not divide into {micro_batches} micro-batches x "
                f"{num_parts} devices that split the rows; make rows a multiple of "
                f"{micro_batches * num_parts}, or change micro_batches or the mesh"
            )
        if row_length % num_token_parts:
            raise InputError(
                f"row_length {row_length} does not divide among {num_token_parts} devices that "
                "split a row; change the mesh's context axis"
            )

    def _read(self, step: int) -> _HostRows:
        micro_batches = self._schedule.micro_batches_in(step)
        num_rows = self._schedule.rows_in(step) // micro_batches
        first_row = self._schedule.rows_before(step)
        shape = (micro_batches, num_rows, self._mixture.row_length)
        slices = self._sharding.addressable_devices_indices_map(shape).values()
        rows = np.unique(np.concatenate([np.arange(num_rows)[index[1]] for index in slices]))
        read = [
            self._mixture[first_row + micro_batch * num_rows + int(row)].arrays()
            for micro_batch in range(micro_batches)
            for row in rows
        ]
        arrays = {}
        for name in read[0]:
            values = np.stack([of_row[name] for of_row in read])
            arrays[name] = values.reshape(micro_batches, len(rows), *values.shape[1:])
        return _HostRows(num_rows, rows, arrays)


class _Slices:
    """The part of a global array [A, B, ...] that a device asks for, out of this process's rows."""

    def __init__(self, rows: np.ndarray, values: np.ndarray) -> None:
        self._rows, self._values = rows, values

    def __call__(self, index: tuple[slice, ...]) -> np.ndarray:
        micro_batches, rows, *rest = index
        begin = np.searchsorted(self._rows, rows.start or 0)
        end = None if rows.stop is None else np.searchsorted(self._rows, rows.stop)
        return np.ascontiguousarray(self._values[micro_batches, begin:end, *rest])


def _parts(sharding: Sharding) -> tuple[int, int]:
    """Into how many parts `sharding` splits the rows and the tokens of [A, B, T]."""
    probe = sharding.num_devices
    shard = sharding.shard_shape((1, probe, probe))
    return probe // shard[1], probe // shard[2]
