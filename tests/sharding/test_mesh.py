"""Mesh shapes: what divides, what does not, and slices of a pod."""

import types

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_jax.errors import InputError
from sharding import mesh
from sharding.mesh import MESH_AXES, MeshShape, make_mesh


@pytest.mark.parametrize(
    "shape, resolved",
    [
        (MeshShape(), (1, 1, 8, 1, 1)),
        (MeshShape(tensor=2), (1, 1, 4, 1, 2)),
        (MeshShape(data=-1, fsdp=4), (2, 1, 4, 1, 1)),
        (MeshShape(data=2, stage=2, fsdp=2), (2, 2, 2, 1, 1)),
        (MeshShape(tensor=-1, fsdp=8), (1, 1, 8, 1, 1)),
    ],
    ids=str,
)
def test_a_mesh_has_all_axes_and_the_rest_where_minus_one_is(shape, resolved):
    made = make_mesh(shape)
    assert made.axis_names == MESH_AXES
    assert tuple(made.shape.values()) == resolved
    assert sorted(device.id for device in made.devices.flat) == list(range(8))


@pytest.mark.parametrize(
    "shape, message",
    [
        (MeshShape(fsdp=3), "does not divide 8 devices"),
        (MeshShape(fsdp=4), "does not divide 8 devices"),
        (MeshShape(fsdp=16), "does not divide 8 devices"),
        (MeshShape(tensor=3), "does not divide 8 devices"),  # and what is left, neither
        (MeshShape(data=-1), "at most one axis is -1"),
        (MeshShape(tensor=0), "sizes are positive"),
        (MeshShape(data=-2), "sizes are positive"),
    ],
    ids=str,
)
def test_a_shape_that_does_not_fit_is_an_error(shape, message):
    with pytest.raises(InputError, match=message) as error:
        make_mesh(shape)
    assert str(error.value).startswith(f"mesh {shape}: ") and "\n" not in str(error.value)


@given(
    sizes=st.tuples(*[st.integers(1, 6)] * 5),
    free=st.integers(0, 4),
)
def test_a_free_axis_takes_what_is_left(sizes, free):
    whole = MeshShape(*sizes)
    number = int(np.prod(sizes))
    asked = MeshShape(*(-1 if i == free else size for i, size in enumerate(sizes)))
    assert asked.resolve(number) == whole.resolve(number) == whole


class SliceDevice(types.SimpleNamespace):
    """What `create_hybrid_device_mesh` asks of a device."""


def slices(num_slices, devices_each):
    """Devices in slices, in an order in which neighbours are of different slices."""
    return [
        SliceDevice(
            id=index * num_slices + part,
            slice_index=part,
            process_index=part,
            platform="cpu",
            device_kind="fake",
        )
        for index in range(devices_each)
        for part in range(num_slices)
    ]


def grid_of(monkeypatch, shape, devices):
    """The devices as `make_mesh` arranges them; a `Mesh` takes none but real ones."""
    monkeypatch.setattr(mesh, "Mesh", lambda grid, *args, **options: grid)
    return make_mesh(shape, devices)


@pytest.mark.parametrize("data", [2, 4])
def test_only_data_crosses_from_slice_to_slice(monkeypatch, data):
    grid = grid_of(monkeypatch, MeshShape(data=data, fsdp=-1, tensor=2), slices(2, 8))
    assert grid.shape == (data, 1, 8 // data, 1, 2)
    numbers = np.vectorize(lambda device: device.slice_index)(grid)
    for index in range(data):
        # Those of one slice are neighbours along data, slow network between the halves.
        assert set(numbers[index].flat) == {index * 2 // data}
    assert len({device.id for device in grid.flat}) == 16


def test_fsdp_over_several_slices_is_refused(monkeypatch):
    with pytest.raises(InputError, match="data must be a multiple of the 2 slices") as error:
        grid_of(monkeypatch, MeshShape(), slices(2, 4))
    assert "\n" not in str(error.value)


def test_a_mesh_may_have_some_of_the_devices():
    made = make_mesh(MeshShape(tensor=2), jax.devices()[2:6])
    assert {device.id for device in made.devices.flat} == {2, 3, 4, 5}
