"""Machines by name, and how fast their links are."""

import importlib.util

import pytest

from llama_jax.errors import InputError
from sharding.topology import find_topology


def tpu(name):
    pytest.importorskip("libtpu")
    return find_topology(name)


def gpu(name):
    pytest.importorskip("jax_plugins.xla_cuda13")
    return find_topology(name)


@pytest.mark.parametrize(
    ("name", "num_devices", "kind"),
    [
        ("v5e:4x4", 16, "TPU v5 lite"),
        ("v5p:2x2x4", 16, "TPU v5"),
        ("v6e:16x16", 256, "TPU v6 lite"),
        ("tpu7x:2x2x1", 8, "TPU7x"),
        ("2*v6e:4x4", 32, "TPU v6 lite"),
    ],
)
def test_tpus(name, num_devices, kind):
    topology = tpu(name)
    assert (len(topology.devices), topology.device_kind) == (num_devices, kind)
    assert topology.is_tpu and topology.peaks.memory_bytes > 1e10


@pytest.mark.parametrize(
    ("name", "num_devices", "kind"),
    [
        ("a100:1", 1, "NVIDIA A100-SXM4-80GB"),
        ("h100:8", 8, "NVIDIA H100 80GB HBM3"),
        ("h100:16x8", 128, "NVIDIA H100 80GB HBM3"),
        ("b200:8", 8, "NVIDIA B200"),
    ],
)
def test_gpus(name, num_devices, kind):
    topology = gpu(name)
    assert (len(topology.devices), topology.device_kind) == (num_devices, kind)
    assert not topology.is_tpu


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("v5p", "no topology after a colon"),
        ("v5p:9", "not known"),
        ("v5q:2x2x4", "names are like v5p:2x2x4"),
        ("h101:8", "names are like h100:16x8"),
        ("x*v6e:4x4", "a number of slices"),
        ("h100:8x", "a number of GPUs"),
        ("", "not known"),
    ],
)
def test_bad_names_are_refused_with_near_ones(name, words):
    pytest.importorskip("libtpu")
    with pytest.raises(InputError, match=words) as refused:
        find_topology(name)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "package", "words"),
    [
        ("v5e:4x4", "libtpu", r"needs libtpu: pip install '\.\[tpu\]'"),
        ("h100:8", "jax_plugins.xla_cuda13", r"needs jax-cuda13-plugin: pip install '\.\[plan\]'"),
    ],
)
def test_a_compiler_that_is_not_installed_is_named(monkeypatch, name, package, words):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda one: None if one == package else found(one)
    )
    with pytest.raises(InputError, match=words):
        find_topology(name)


def at(topology, *coordinates):
    return [one for one in topology.devices if tuple(one.coords) in coordinates]


def test_an_axis_of_the_torus_is_a_ring_only_where_it_closes():
    cube, line = tpu("v5p:4x4x4"), tpu("v5p:2x2x4")
    whole_axis = [(0, 0, z) for z in range(4)]
    near = cube.kind.links.near
    assert cube.seconds(1.0, at(cube, *whole_axis)) == 1 / near
    assert cube.seconds(1.0, at(cube, *whole_axis[:2])) == 2 / near  # half of the axis: a line
    assert line.seconds(1.0, at(line, *whole_axis)) == 2 / near  # not made of cubes
    assert cube.seconds(1.0, cube.devices) == pytest.approx(1 / (3 * near))


def test_a_flat_torus_closes_at_sixteen():
    pod, slice_of_it = tpu("v6e:16x16"), tpu("v6e:4x4")
    near = pod.kind.links.near
    assert pod.seconds(1.0, pod.devices) == pytest.approx(1 / (2 * near))
    assert slice_of_it.seconds(1.0, slice_of_it.devices) == pytest.approx(1 / near)


def test_what_crosses_slices_or_nodes_is_shared_by_those_within():
    """An all-gather of 8 over two nodes: of the 7 parts that come, 4 come from the other node, once
    for all four devices here."""
    nodes = gpu("h100:2x4")
    links = nodes.kind.links
    assert nodes.seconds(7.0, nodes.devices) == pytest.approx(7 / links.near + 4 / 4 / links.far)
    pair = [nodes.devices[0], nodes.devices[4]]
    assert nodes.seconds(1.0, pair) == pytest.approx(1 / links.far)
    slices = tpu("2*v6e:4x4")
    twins = [one for one in slices.devices if tuple(one.coords) == (0, 0, 0)]
    assert slices.seconds(1.0, twins) == pytest.approx(1 / slices.kind.links.far)
