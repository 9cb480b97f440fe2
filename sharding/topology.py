"""Machines by name: `v5e:4x4`, `v5p:16x16x16`, `2*v6e:16x16`, `tpu7x:4x4x4`, `h100:8`, `h100:16x8`.

What a plan needs to know of one: its devices, which compile and never run; what each can do; how
fast its links are. Peaks and memory are those of `llama_jax/accelerators.py`.

Sources. Clock and products a cycle of a TPU: chosen so that they give the published peak, and the
compiler's estimates of cycles are of that clock. Links of a TPU: Google's figures for a chip
(cloud.google.com/tpu/docs: v4 2,400 Gbit/s over 6 links, v5e 1,600 over 4, v5p 4,800 over 6, v6e
3,584 over 4), nine tenths of them usable, which is near what jax-ml.github.io/scaling-book measured
(1.8e11 for v5p and v6e, both ways along an axis); of a core of tpu7x assumed to be half of v5p's.
Between slices: 6.25e9 bytes a second for each chip of v5p and 12.5e9 of v6e there; others assumed.
GPUs: NVLink one way as in the data sheets, four fifths of it usable (assumed); InfiniBand of one
adapter a GPU, 200 Gbit/s beside an A100 and 400 beside the others. Host memory of a TPU: 32e9 bytes
a second each way, assumed.
"""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field

import jax
import numpy as np

from llama_jax.accelerators import Accelerator, accelerator
from llama_jax.compile_targets import GPU_TARGETS, target_devices
from llama_jax.errors import InputError


@dataclass(frozen=True)
class Links:
    """What a device sends and receives over.

    Attributes:
      near: bytes a second into a device. TPU: along one whole axis of the torus, both ways; GPU:
        from those of its node.
      far: bytes a second into a device from another slice or node.
      wraps: TPU: the size from which on an axis of the torus closes to a ring; 0 never does.
    """

    near: float
    far: float
    wraps: int = 0


@dataclass(frozen=True)
class Kind:
    """A generation of machines.

    Attributes:
      links: of one device.
      clock: TPU: cycles a second, in which the compiler estimates; None of a GPU.
      cores: devices of a chip.
      example: a name of a machine.
    """

    links: Links
    example: str
    clock: float | None = None
    cores: int = 1


TPU_KINDS = {
    "v4": Kind(Links(0.9e11, 3.1e9, wraps=4), "v4:4x4x4", 1.05e9),
    "v5e": Kind(Links(0.9e11, 3.1e9, wraps=16), "v5e:4x4", 1.5e9),
    "v5p": Kind(Links(1.8e11, 6.25e9, wraps=4), "v5p:2x2x4", 1.75e9),
    "v6e": Kind(Links(1.8e11, 12.5e9, wraps=16), "v6e:16x16", 1.75e9),
    "tpu7x": Kind(Links(0.9e11, 6.25e9, wraps=4), "tpu7x:4x4x4", 2.2e9, cores=2),
}
GPU_KINDS = {
    "a100": Kind(Links(0.8 * 300e9, 25e9), "a100:1"),
    "h100": Kind(Links(0.8 * 450e9, 50e9), "h100:16x8"),
    "h200": Kind(Links(0.8 * 450e9, 50e9), "h200:8"),
    "b200": Kind(Links(0.8 * 900e9, 50e9), "b200:8"),
}
assert set(GPU_KINDS) == set(GPU_TARGETS)
KINDS = TPU_KINDS | GPU_KINDS
# Of a TPU's host memory, each way.
HOST_BANDWIDTH = 32e9
# Between GPUs and their host: PCIe 5.
PCIE_BANDWIDTH = 55e9


@dataclass(frozen=True)
class Topology:
    """A machine that need not be here.

    Attributes:
      name: as it was asked for.
      kind: of its chips.
      devices: all of them, in JAX's order.
      peaks: of one device.
    """

    name: str
    kind: Kind
    devices: list[jax.Device] = field(repr=False)
    peaks: Accelerator = field(repr=False)

    @property
    def device_kind(self) -> str:
        return self.devices[0].device_kind

    @property
    def is_tpu(self) -> bool:
        return self.devices[0].platform == "tpu"

    @property
    def host_bandwidth(self) -> float:
        return HOST_BANDWIDTH if self.is_tpu else PCIE_BANDWIDTH

    def seconds(self, num_bytes: float, devices: Sequence[jax.Device]) -> float:
        """How long it takes each of `devices`, which exchange something among themselves, to
        receive `num_bytes` around rings.

        Between slices or nodes, as many bytes cross as each holds, shared by its devices.
        """
        islands = {self._island(device) for device in devices}
        here = self._island(devices[0])
        near = [device for device in devices if self._island(device) == here]
        seconds = num_bytes / self._near_bandwidth(near) if len(near) > 1 else 0.0
        if len(islands) > 1:
            share = (1 - 1 / len(islands)) / (1 - 1 / len(devices))
            seconds += num_bytes * share / len(near) / self.kind.links.far
        return seconds

    def permute_seconds(self, num_bytes: float, source: jax.Device, target: jax.Device) -> float:
        """How long a device takes to receive `num_bytes` from one that is its neighbour.

        Rings go both ways at once, and what goes one way has half of the axis: permutations come in
        pairs, so each is given the whole.
        """
        is_near = self._island(source) == self._island(target)
        return num_bytes / (self.kind.links.near if is_near else self.kind.links.far)

    def _island(self, device: jax.Device) -> int:
        """The slice of a TPU, the node of a GPU: within it the fast links are."""
        if self.is_tpu:
            return getattr(device, "slice_index", None) or 0
        return device.process_index

    def _near_bandwidth(self, devices: Sequence[jax.Device]) -> float:
        if not self.is_tpu:
            return self.kind.links.near
        extent = np.max([device.coords for device in self.devices], axis=0) + 1
        coordinates = np.array([device.coords for device in devices])
        closes = self._closes(extent)
        total = 0.0
        for axis, size in enumerate(extent):
            used = len(np.unique(coordinates[:, axis]))
            if used > 1:  # half of it where the ring is open, one way instead of both
                total += self.kind.links.near * (1.0 if used == size and closes[axis] else 0.5)
        return total or self.kind.links.near  # the cores of one chip

    def _closes(self, extent: np.ndarray) -> list[bool]:
        """Whether each axis of the torus is a ring. Those of three axes are made of cubes of 4, and
        all of them are whole cubes or none closes."""
        wraps = self.kind.links.wraps
        if wraps == 4:
            return [bool(np.all(extent % 4 == 0))] * len(extent)
        return [bool(size % wraps == 0) for size in extent]


def find_topology(name: str) -> Topology:
    """The machine `name`.

    Raises `InputError`: an unknown one, with near ones, or a compiler that is not installed.
    """
    kind = name.rpartition("*")[2].partition(":")[0]
    if kind not in KINDS:
        near = difflib.get_close_matches(kind, KINDS, n=3, cutoff=0.3)
        known = ", ".join(KINDS[one].example for one in near or KINDS)
        raise InputError(f"topology {name!r}: not known; names are like {known}")
    devices = target_devices(name)
    return Topology(name, KINDS[kind], devices, accelerator(devices[0].device_kind))
