"""Batches on devices: the same for every mesh, every number of processes, every place to start."""

import threading

import jax
import numpy as np
import pytest

from llama_jax.errors import InputError
from sharding.mesh import MeshShape, make_mesh
from sharding.placement import batch_sharding
from train.config import BatchStep
from train.data.batch_schedule import BatchSchedule
from train.data.loader import Loader

T = 8


def ramp(first=2, second=2):
    """Two steps of 16 rows, then steps of 32; into how many micro-batches they are split."""
    return BatchSchedule((BatchStep(0, 16, first), BatchStep(32 * T, 32, second)), row_length=T)


RAMP = ramp()


def sharding_of(**axes):
    return batch_sharding(make_mesh(MeshShape(**axes), jax.devices("cpu")[:8]))


def load(mixture, schedule=RAMP, *, sharding=None, first_step=0, num_steps=4, **options):
    with Loader(
        mixture,
        schedule,
        sharding=sharding or sharding_of(),
        first_step=first_step,
        num_steps=num_steps,
        **options,
    ) as loader:
        return [jax.device_get(batch) for batch in loader]


def test_a_batch_is_the_rows_of_the_sequence_in_order(mixture):
    row = 0
    for step, batch in enumerate(load(mixture)):
        num_rows = RAMP.rows_in(step) // 2
        assert {name: values.dtype for name, values in batch.items()} == {
            "tokens": np.int32,
            "targets": np.int32,
            "segment_ids": np.int32,
            "loss_mask": np.bool_,
        }
        assert all(values.shape == (2, num_rows, T) for values in batch.values())
        for micro_batch in range(2):
            for place in range(num_rows):
                tokens, segments = mixture[row]
                row += 1
                at = (micro_batch, place)
                np.testing.assert_array_equal(batch["tokens"][at], tokens[:-1])
                np.testing.assert_array_equal(batch["targets"][at], tokens[1:])
                np.testing.assert_array_equal(batch["segment_ids"][at], segments[:-1])
                valid = (segments[1:] == segments[:-1]) & (segments[1:] > 0)
                np.testing.assert_array_equal(batch["loss_mask"][at], valid)
    assert row == RAMP.rows_before(4)


def test_some_targets_are_masked_and_some_rows_hold_two_documents(mixture):
    """Otherwise the test above would compare nothing."""
    batches = load(mixture)
    assert any(batch["segment_ids"].max() > 1 for batch in batches)
    assert any((batch["segment_ids"] == 0).any() for batch in batches)
    assert not all(batch["loss_mask"].all() for batch in batches)


@pytest.mark.parametrize(
    "axes", [{"data": 8, "fsdp": 1}, {"data": 2}, {"fsdp": 2, "context": 4}, {"tensor": 8}]
)
def test_every_mesh_gets_the_same_batches(mixture, axes):
    assert_equal(load(mixture, sharding=sharding_of(**axes)), load(mixture))


def assert_equal(batches, expected):
    assert len(batches) == len(expected)
    for batch, other in zip(batches, expected, strict=True):
        jax.tree.map(np.testing.assert_array_equal, batch, other)


class OneProcess:
    """`sharding` as a process sees it that has only `devices`: what it loads, it loads for them."""

    def __init__(self, sharding, devices):
        self._sharding, self._devices = sharding, devices
        self.num_devices, self.shard_shape = sharding.num_devices, sharding.shard_shape

    def addressable_devices_indices_map(self, shape):
        indices = self._sharding.devices_indices_map(shape)
        return {device: indices[device] for device in self._devices}


class Recording:
    """A mixture that remembers which rows were read."""

    def __init__(self, mixture):
        self._mixture, self.row_length, self.read = mixture, mixture.row_length, []

    def __getitem__(self, index):
        self.read.append(index)
        return self._mixture[index]


@pytest.mark.parametrize("axes", [{"data": 2}, {"fsdp": 4, "context": 2}, {"tensor": 4}])
@pytest.mark.parametrize("num_processes", [1, 2, 4])
def test_processes_read_only_their_rows_and_together_the_same_batch(
    mixture, monkeypatch, axes, num_processes
):
    """`make_array_from_callback` is replaced by what it does for the devices of one process."""
    sharding = sharding_of(**axes)
    devices = list(sharding.mesh.devices.flat)
    per_process = 8 // num_processes
    together, rows_read = [{} for _ in range(4)], []

    def local_shards(shape, sharding, callback):
        indices = sharding.addressable_devices_indices_map(shape)
        return shape, [(index, callback(index)) for index in indices.values()]

    monkeypatch.setattr(jax, "make_array_from_callback", local_shards)
    for process in range(num_processes):
        local = devices[process * per_process : (process + 1) * per_process]
        recording = Recording(mixture)
        loader = Loader(
            recording,
            RAMP,
            sharding=OneProcess(sharding, local),
            first_step=0,
            num_steps=4,
        )
        for step, batch in enumerate(loader):
            for name, (shape, shards) in batch.items():
                whole = together[step].setdefault(name, np.full(shape, -1, shards[0][1].dtype))
                for index, values in shards:
                    whole[index] = values
        rows_read.append(sorted(recording.read))
    monkeypatch.undo()
    assert_equal(together, load(mixture))
    num_groups = sharding.mesh.shape["data"] * sharding.mesh.shape["fsdp"]
    share = RAMP.rows_before(4) // min(num_groups, num_processes)
    assert all(len(read) == len(set(read)) == share for read in rows_read)
    assert {row for read in rows_read for row in read} == set(range(RAMP.rows_before(4)))


@pytest.mark.parametrize("first_step", [1, 3])
def test_it_continues_from_any_step_on_another_mesh(mixture, first_step):
    rest = load(
        mixture,
        sharding=sharding_of(data=4),
        first_step=first_step,
        num_steps=4 - first_step,
    )
    assert_equal(rest, load(mixture)[first_step:])


def test_micro_batches_and_reading_ahead_do_not_change_the_rows(mixture):
    expected = load(mixture, ramp(1, 1), read_ahead=0)
    for micro_batches, read_ahead in (((1, 1), 1), ((2, 2), 7), ((1, 2), 4)):
        batches = load(mixture, ramp(*micro_batches), read_ahead=read_ahead)
        assert [len(batch["tokens"]) for batch in batches[1:3]] == [*micro_batches]
        merged = jax.tree.map(lambda values: values.reshape(1, -1, T), batches)
        assert_equal(merged, expected)


def test_rows_are_read_before_they_are_asked_for(mixture):
    recording, enough = Recording(mixture), threading.Event()
    get = recording.__class__.__getitem__

    class Signalling(Recording):
        def __getitem__(self, index):
            if len(self.read) >= RAMP.rows_before(3) - 1:
                enough.set()
            return get(self, index)

    options = {"first_step": 0, "num_steps": 10**9, "read_ahead": 2}
    with Loader(Signalling(mixture), RAMP, sharding=sharding_of(), **options) as loader:
        next(loader)
        assert enough.wait(30), "the next two steps were not read while nobody asked"


def test_loading_works_under_the_transfer_guard(mixture):
    with jax.transfer_guard("disallow"):
        assert len(load(mixture)) == 4


def test_a_damaged_row_reaches_the_caller_as_one_line(mixture):
    shard = mixture.sources["low"].path / "rows-000002.arrayrecord"
    shard.write_bytes(bytes(shard.stat().st_size))
    with pytest.raises(InputError, match="rows-000002.arrayrecord: row . is damaged"):
        load(mixture)


def test_rows_and_tokens_that_do_not_divide_are_refused_with_the_numbers(mixture):
    with pytest.raises(InputError, match=r"16 rows.*4 micro-batches x 8 devices.*multiple of 32"):
        load(mixture, ramp(4, 4))
    with pytest.raises(InputError, match=r"32 rows.*8 micro-batches x 8 devices.*multiple of 64"):
        load(mixture, ramp(2, 8))
    with pytest.raises(InputError, match="row_length 9 does not divide among 8 devices"):
        mixture.row_length = 9
        load(mixture, ramp(4, 4), sharding=sharding_of(context=8, fsdp=1))
