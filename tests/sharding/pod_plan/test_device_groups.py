"""Who talks to whom, and along which axes that is: every way of saying it, against lists."""

import jax
import numpy as np
import pytest

from sharding.mesh import MeshShape, make_mesh
from sharding.pod_plan.device_groups import axes_of, device_groups, permuted_pairs


@pytest.mark.parametrize(
    ("words", "groups"),
    [
        ("replica_groups={{0,1},{2,3},{4,5},{6,7}}", [[0, 1], [2, 3], [4, 5], [6, 7]]),
        ("replica_groups={}", [[0, 1, 2, 3, 4, 5, 6, 7]]),
        ("replica_groups=[2,4]<=[8]", [[0, 1, 2, 3], [4, 5, 6, 7]]),
        ("replica_groups=[4,2]<=[2,4]T(1,0)", [[0, 4], [1, 5], [2, 6], [3, 7]]),
        ("replica_groups=[2,4]<=[2,2,2]T(1,0,2)", [[0, 1, 4, 5], [2, 3, 6, 7]]),
        ("replica_groups=mesh['a'=2,'b'=4] {'a'}", [[0, 4], [1, 5], [2, 6], [3, 7]]),
        ("replica_groups=mesh['a'=2,'b'=4] {'a','b'}", [[0, 1, 2, 3, 4, 5, 6, 7]]),
        (
            "replica_groups=mesh['a'=4,'b'=2], device_ids=([2,4]T(1,0)) {'b'}",
            [[0, 4], [1, 5], [2, 6], [3, 7]],
        ),
        # Two of an axis of eight: each pair of neighbours, and each pair four apart.
        ("replica_groups=mesh['a'=8] {'a':(4)2}", [[0, 1], [2, 3], [4, 5], [6, 7]]),
        ("replica_groups=mesh['a'=8] {'a':(1)2}", [[0, 4], [1, 5], [2, 6], [3, 7]]),
    ],
)
def test_groups(words, groups):
    found = device_groups(f", channel_id=3, {words}, dimensions={{0}}", 8)
    assert found.tolist() == groups


def test_a_way_that_is_not_known_is_refused():
    with pytest.raises(ValueError, match="not understood"):
        device_groups(", replica_groups=something_new", 8)


def test_axes_of_groups_and_of_a_permutation():
    mesh = make_mesh(MeshShape(data=2, fsdp=2, tensor=2), jax.devices()[:8])
    assert axes_of(np.array([[0, 1], [2, 3]]), mesh) == ("tensor",)
    assert axes_of(np.array([[0, 2], [1, 3]]), mesh) == ("fsdp",)
    assert axes_of(np.array([[0, 4], [3, 7]]), mesh) == ("data",)
    assert axes_of(np.array([[0, 1, 2, 3], [4, 5, 6, 7]]), mesh) == ("fsdp", "tensor")
    pairs = permuted_pairs("collective-permute(%x), source_target_pairs={{0,2},{2,0},{1,3}}, x=1")
    assert pairs.tolist() == [[0, 2], [2, 0], [1, 3]] and axes_of(pairs, mesh) == ("fsdp",)
