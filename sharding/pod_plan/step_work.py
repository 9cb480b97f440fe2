"""What one device does in a step: its products, its traffic, and how long the parts take."""

import dataclasses
from collections import Counter
from dataclasses import dataclass, field

from sharding.topology import Topology

# Of the peaks: what reads and writes of fusions without products reach, what products reach on a
# GPU, and what attention kernels reach with heads of 128. The last is the least known: see
# `KERNEL_SHARES` for the range that a plan tells.
BANDWIDTH_SHARE = 0.85
GPU_PRODUCT_SHARE = 0.7
KERNEL_SHARE = 0.5
KERNEL_SHARES = (0.65, 0.35)


@dataclass
class CollectiveTotal:
    """All collectives of one kind along the same axes, in one step.

    Attributes:
      count: how many.
      bytes: that arrive at a device.
      seconds: on links of their own.
      exposed_seconds: of these, how long the device does nothing but wait.
    """

    kind: str
    axes: tuple[str, ...]
    count: int = 0
    bytes: float = 0.0
    seconds: float = 0.0
    exposed_seconds: float = 0.0


@dataclass
class StepWork:
    """What one device does in a step.

    Attributes:
      product_flops: of matrix products outside of kernels, executed ones.
      kernel_flops: of the kernels that are known.
      matrix_seconds: of instructions with matrix products.
      vector_seconds: of all others.
      kernel_seconds: of kernels, at `KERNEL_SHARE` of the peak.
      host_seconds: waiting for copies from or to the host.
      collectives: by kind and axes.
      unknown_kernels: name -> calls that no time is counted for.
      unknown_loops: loops whose count depends on data, counted as one turn.
    """

    product_flops: float = 0.0
    kernel_flops: float = 0.0
    matrix_seconds: float = 0.0
    vector_seconds: float = 0.0
    kernel_seconds: float = 0.0
    host_seconds: float = 0.0
    collectives: dict[tuple, CollectiveTotal] = field(default_factory=dict)
    unknown_kernels: Counter = field(default_factory=Counter)
    unknown_loops: Counter = field(default_factory=Counter)

    @property
    def exposed_seconds(self) -> float:
        return sum(one.exposed_seconds for one in self.collectives.values())

    @property
    def seconds(self) -> float:
        parts = self.matrix_seconds + self.vector_seconds + self.kernel_seconds
        return parts + self.host_seconds + self.exposed_seconds

    @property
    def range_seconds(self) -> tuple[float, float]:
        """The step if kernels are quick and all communication is hidden, and if they are slow and
        none is."""
        quick, slow = (self.kernel_seconds * KERNEL_SHARE / share for share in KERNEL_SHARES)
        rest = self.matrix_seconds + self.vector_seconds
        everything = sum(one.seconds for one in self.collectives.values())
        return rest + quick, rest + slow + self.host_seconds + everything

    def add(self, part: "StepWork") -> None:
        """Adds what another part of the step does."""
        for each in dataclasses.fields(StepWork):
            value = getattr(part, each.name)
            if isinstance(value, float):
                setattr(self, each.name, getattr(self, each.name) + value)
            elif isinstance(value, Counter):
                getattr(self, each.name).update(value)
        for key, one in part.collectives.items():
            into = self.collectives.setdefault(key, CollectiveTotal(*key))
            for name in ("count", "bytes", "seconds", "exposed_seconds"):
                setattr(into, name, getattr(into, name) + getattr(one, name))


def add_kernel(
    work: StepWork, topology: Topology, *, flops: float, num_bytes: float, times: int = 1
) -> float:
    """Adds a kernel that runs `times` to `work`; the seconds of once."""
    seconds = max(
        flops / (KERNEL_SHARE * topology.peaks.bf16_flops),
        num_bytes / (BANDWIDTH_SHARE * topology.peaks.memory_bandwidth),
    )
    work.kernel_flops += times * flops
    work.kernel_seconds += times * seconds
    return seconds
