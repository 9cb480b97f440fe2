"""A search over meshes, remat policies and micro-batches: what is tried, and in which order."""

import dataclasses

import pytest

from llama_jax.errors import InputError
from sharding.mesh import MeshShape
from sharding.pod_plan.memory_plot import plot_memory
from sharding.topology import find_topology
from train.plan import search as module
from train.plan.search import arrangement, candidates, search

from .small_plans import small_run


def machine(name="v5e:2x2"):
    pytest.importorskip("libtpu")
    return find_topology(name)


@pytest.fixture(scope="module")
def found():
    return candidates(small_run(), 0, 16, machine())


def test_candidates_are_those_that_the_run_allows(found):
    allowed, too_large = found
    assert too_large == 0
    shapes = {(one.mesh.fsdp, one.mesh.tensor) for one in allowed}
    assert shapes == {(4, 1), (2, 2)}  # two key-value heads
    assert {one.micro_batches for one in allowed if one.mesh.fsdp == 4} == {1, 2, 4}
    assert {one.remat for one in allowed} == {"products", "projections", "attention", "full"}
    assert allowed == sorted(allowed, key=lambda one: one.seconds)
    # Nothing computed again, nothing gathered twice: first to be tried.
    assert (allowed[0].remat, allowed[0].micro_batches) == ("products", 1)


def test_slices_are_joined_by_data_alone():
    allowed, _ = candidates(small_run(), 0, 64, machine("2*v6e:4x4"))
    assert allowed and {one.mesh.data for one in allowed} == {2}


def test_what_cannot_fit_is_not_compiled():
    """A hundred thousand rows on four small chips."""
    topology = machine()
    allowed, too_large = candidates(small_run(), 0, 2**17, topology)
    assert too_large > len(allowed)
    with pytest.raises(InputError, match=r"search: of \d+ arrangements on v5e:2x2 none has room"):
        search(
            small_run(), 0, 2**21, topology, name="small", command="", options={}, most=1,
            processes=1, say=lambda line: None,
        )  # fmt: skip


def fields_of(mesh, seconds=None, missing=0, peak=4):
    fits = seconds is not None
    memory = {"peak": peak * 2**30, "capacity": 16 * 2**30, "missing_bytes": missing * 2**30}
    memory["groups"] = {"weights": 2 * 2**30, "kept for the backward pass": (peak - 2) * 2**30}
    fields = {"mesh": mesh, "remat": "full", "micro_batches": 2, "fits": fits, "memory": memory}
    if fits:
        fields |= {"step_seconds": {"predicted": seconds}, "mfu_causal": 0.5}
    return fields


def test_what_fits_comes_first_and_the_quickest_before_others():
    plans = [
        fields_of({"fsdp": 1}, missing=9),
        fields_of({"fsdp": 4}, seconds=2.0),
        fields_of({"fsdp": 2}, missing=3),
        fields_of({"fsdp": 8}, seconds=1.0),
    ]
    ranked = sorted(plans, key=module._rank)
    assert [plan["mesh"]["fsdp"] for plan in ranked] == [8, 4, 2, 1]
    assert arrangement(ranked[0]) == (
        "fsdp 8, remat full, 2 micro-batches: 1 s, MFU 50.0%, 25% of memory"
    )
    assert arrangement(ranked[2]).endswith("does not fit, by 3.0 GiB")


def test_a_picture_of_memory(tmp_path):
    plans = [fields_of({"fsdp": 8}, seconds=1.0), fields_of({"fsdp": 4}, missing=3, peak=19)]
    for ending, head in ((".png", b"\x89PNG"), (".svg", b"<?xml")):
        path = tmp_path / f"memory{ending}"
        plot_memory(plans, ["eight", "four"], path)
        assert path.read_bytes().startswith(head)


@pytest.mark.slow
def test_two_processes_compile_and_rank():
    lines = []
    run = dataclasses.replace(small_run(), mesh=MeshShape(fsdp=4))
    plans = search(
        run, 0, 16, machine(), name="small", command="llama-jax plan small", options={}, most=2,
        processes=2, say=lines.append,
    )  # fmt: skip
    assert len(plans) == 2 and all(plan["fits"] for plan in plans)
    first, second = (plan["step_seconds"]["predicted"] for plan in plans)
    assert first <= second and len(lines) == 3
