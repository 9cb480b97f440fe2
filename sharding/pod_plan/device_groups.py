"""Which devices a collective joins, and which axes of the mesh that is.

A compiled program numbers devices as they stand in the mesh, and says groups in three ways: lists
`{{0,1},{2,3}}`, an arrangement `[2,2]<=[2,2]T(1,0)`, or a mesh of its own and some of its axes,
`mesh['axis_0'=2,'axis_1'=2] {'axis_0'}`.
"""

import math
import re

import numpy as np
from jax.sharding import Mesh

_LISTS = re.compile(r"replica_groups=\{((?:\{[\d,]*\},?)*)\}")
_ARRANGED = re.compile(r"replica_groups=\[(\d+),(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")
_NAMED = re.compile(
    r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\((\[[\d,]+\](?:T\([\d,]+\))?|[\d,]+)\))? "
    r"\{([^}]*)\}"
)
_PAIRS = re.compile(r"source_target_pairs=\{((?:\{\d+,\d+\},?)*)\}")


def device_groups(attributes: str, num_devices: int) -> np.ndarray:
    """Numbers of devices `[groups, devices of one]`, from an instruction's attributes.

    Raises `ValueError` for a way of saying them that is not known.
    """
    if found := _LISTS.search(attributes):
        groups = [_integers(one) for one in re.findall(r"\{([\d,]*)\}", found.group(1))]
        return np.array(groups if groups else [range(num_devices)])
    if found := _ARRANGED.search(attributes):
        num_groups, size, dims, order = found.groups()
        ids = np.arange(num_devices).reshape(_integers(dims))
        return (ids.transpose(_integers(order)) if order else ids).reshape(
            int(num_groups), int(size)
        )
    if found := _NAMED.search(attributes):
        return _of_named_axes(*found.groups(), num_devices)
    raise ValueError(f"groups of devices are not understood: {attributes[:200]}")


def permuted_pairs(attributes: str) -> np.ndarray:
    """`[pairs, 2]`, who sends to whom."""
    pairs = re.findall(r"\{(\d+),(\d+)\}", _PAIRS.search(attributes).group(1))
    return np.array(pairs, int).reshape(-1, 2)


def axes_of(groups: np.ndarray, mesh: Mesh) -> tuple[str, ...]:
    """The axes of `mesh` along which the devices of a group differ."""
    places = np.stack(np.unravel_index(groups, mesh.devices.shape), axis=-1)
    differs = np.any(places != places[:, :1], axis=(0, 1))
    return tuple(name for name, is_used in zip(mesh.axis_names, differs, strict=True) if is_used)


def _of_named_axes(axes: str, device_ids: str | None, used: str, num_devices: int) -> np.ndarray:
    sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", axes)}
    ids = np.arange(num_devices)
    if device_ids is not None:
        arranged = re.fullmatch(r"\[([\d,]+)\](?:T\(([\d,]+)\))?", device_ids)
        if arranged is None:
            ids = np.array(_integers(device_ids))
        else:
            dims, order = arranged.groups()
            ids = ids.reshape(_integers(dims))
            ids = ids.transpose(_integers(order)) if order else ids
    # An axis may be used in part: 'axis_0':(2)4 is 4 of it, within each of 2.
    parts: list[tuple[int, bool]] = []
    for name, size in sizes.items():
        pieces = [(1, size)] if f"'{name}'" in used else []
        pieces = [
            (int(before), int(inner))
            for before, inner in re.findall(rf"'{re.escape(name)}':\((\d+)\)(\d+)", used)
        ] or pieces
        done = 1
        for before, inner in sorted(pieces):
            parts += [(before // done, False), (inner, True)]
            done = before * inner
        parts.append((size // done, False))
    ids = ids.reshape([size for size, _ in parts])
    ordered = [i for i, (_, is_used) in enumerate(parts) if not is_used]
    ordered += [i for i, (_, is_used) in enumerate(parts) if is_used]
    group = math.prod(size for size, is_used in parts if is_used)
    return ids.transpose(ordered).reshape(-1, group)


def _integers(text: str) -> list[int]:
    return [int(number) for number in text.split(",") if number]
