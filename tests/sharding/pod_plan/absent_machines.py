"""Programs compiled for machines that are not here, on a mesh of four."""

import functools

import jax
import pytest
from jax.sharding import NamedSharding

from sharding.mesh import MeshShape, make_mesh
from sharding.pod_plan.hlo import parse_program
from sharding.topology import find_topology


@functools.cache
def machine(name: str):
    """The topology `name` and a mesh on it: tensor 2, the rest fsdp."""
    pytest.importorskip("jax_plugins.xla_cuda13" if name.startswith("h") else "libtpu")
    topology = find_topology(name)
    tensor = 2 if len(topology.devices) > 1 else 1
    return topology, make_mesh(MeshShape(tensor=tensor), topology.devices)


def compile_on(name: str, function, *arrays, donate=()):
    """`function` for `name`; each of `arrays` is (shape, dtype, PartitionSpec)."""
    _, mesh = machine(name)
    arguments = [
        jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, spec))
        for shape, dtype, spec in arrays
    ]
    platform = "cuda" if mesh.devices.flat[0].platform == "gpu" else "tpu"
    traced = jax.jit(function, donate_argnums=donate).trace(*arguments)
    return traced.lower(lowering_platforms=(platform,)).compile()


def program_on(name: str, function, *arrays):
    return parse_program(compile_on(name, function, *arrays).as_text())
