"""The mesh: how the devices of a job are arranged along named axes.

    data     copies of the model, one a slice of a TPU pod (slow network between them)
    stage    pipeline stages
    fsdp     parameters, gradients and optimiser state split; each device has its own rows
    context  the tokens of a row split
    tensor   heads, feed-forward and vocabulary split, and the residual stream's tokens

Slower axes come first, so that neighbours on the fast network are neighbours along `tensor`.
"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh

from llama_jax.errors import InputError

DATA, STAGE, FSDP, CONTEXT, TENSOR = MESH_AXES = ("data", "stage", "fsdp", "context", "tensor")


@dataclass(frozen=True)
class MeshShape:
    """Devices along each axis; at most one may be -1, which takes what is left."""

    data: int = 1
    stage: int = 1
    fsdp: int = -1
    context: int = 1
    tensor: int = 1

    def __str__(self) -> str:
        return " x ".join(f"{axis} {size}" for axis, size in dataclasses.asdict(self).items())

    def resolve(self, num_devices: int) -> "MeshShape":
        """The same with -1 replaced. Raises `InputError` if `num_devices` do not divide so."""
        sizes = dataclasses.asdict(self)
        free = [axis for axis, size in sizes.items() if size == -1]
        if len(free) > 1 or any(size < 1 for size in sizes.values() if size != -1):
            raise InputError(f"mesh {self}: sizes are positive, and at most one axis is -1")
        fixed = math.prod(size for size in sizes.values() if size != -1)
        if free and num_devices % fixed == 0:
            return dataclasses.replace(self, **{free[0]: num_devices // fixed})
        if fixed != num_devices:
            raise InputError(
                f"mesh {self}: does not divide {num_devices} devices; change an axis, or give one "
                "of them -1 to take the rest"
            )
        return self


def make_mesh(shape: MeshShape, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh with the axes `MESH_AXES` over `devices` (all of the job's by default).

    On TPUs an axis is laid on whole axes of the torus where it can be; several slices are told
    apart by the devices' `slice_index`, and `data` must be a multiple of their number. On GPUs that
    index is of what NVLink joins, a host or a rack: those come one after another, so that `tensor`
    lies within where it fits, and every axis may cross from one to the next.

    Raises `InputError` if the devices do not divide so.
    """
    devices = jax.devices() if devices is None else list(devices)
    shape = shape.resolve(len(devices))
    sizes = dataclasses.astuple(shape)
    if devices[0].platform == "gpu":
        devices = sorted(devices, key=lambda device: (_slice_of(device), device.id))
        return _mesh(np.array(devices).reshape(sizes))
    num_slices = len({_slice_of(device) for device in devices})
    if num_slices > 1:
        if shape.data % num_slices:
            raise InputError(
                f"mesh {shape}: data must be a multiple of the {num_slices} slices, between which "
                "the network is slow"
            )
        within = (shape.data // num_slices, *sizes[1:])
        across = (num_slices, *(1 for _ in sizes[1:]))
        grid = mesh_utils.create_hybrid_device_mesh(
            within, across, devices, allow_split_physical_axes=True
        )
    else:
        grid = mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True)
    return _mesh(grid)


def _slice_of(device: jax.Device) -> int:
    return getattr(device, "slice_index", 0)  # a CPU has none


def _mesh(grid: np.ndarray) -> Mesh:
    return Mesh(grid, MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES))
