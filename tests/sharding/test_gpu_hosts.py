"""GPUs of several hosts: XLA numbers hosts as slices, and they are not the slices of a TPU pod."""

import types

import numpy as np

from sharding import mesh
from sharding.mesh import MeshShape, make_mesh


class Gpu(types.SimpleNamespace):
    """What `make_mesh` asks of a device."""


def test_fsdp_crosses_hosts_and_tensor_does_not(monkeypatch):
    """One process a GPU, dealt out over the hosts in turn, as some launchers do."""
    gpus = [Gpu(id=i, slice_index=i % 4, process_index=i, platform="gpu") for i in range(32)]
    monkeypatch.setattr(mesh, "Mesh", lambda grid, *args, **options: grid)
    for shape in (MeshShape(tensor=8), MeshShape(fsdp=2, tensor=8, data=2)):
        grid = make_mesh(shape, gpus)
        hosts = np.vectorize(lambda gpu: gpu.slice_index)(grid)
        assert (hosts == hosts[..., :1]).all(), "tensor crosses hosts"
        assert len({gpu.id for gpu in grid.flat}) == 32
    assert make_mesh(MeshShape(), gpus).shape == (1, 1, 32, 1, 1)
