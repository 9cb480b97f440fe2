"""What a device receives in the collectives of a program, by the ring each of them takes.

Bytes are those that arrive at one device, once: an all-gather brings it what the others hold, an
all-reduce as much in each of its two halves.
"""

from dataclasses import dataclass

from jax.sharding import Mesh

from sharding.pod_plan.device_groups import axes_of, device_groups, permuted_pairs
from sharding.pod_plan.hlo import Computation, Instruction
from sharding.topology import Topology

_KINDS = (
    "all-gather", "all-reduce", "reduce-scatter", "all-to-all", "ragged-all-to-all",
    "collective-permute", "collective-broadcast",
)  # fmt: skip


@dataclass(frozen=True)
class Collective:
    """One of them, as it runs once.

    Attributes:
      kind: XLA's name; a fused `all-reduce-scatter` of a TPU is a `reduce-scatter`.
      axes: of the mesh, among whose devices it is.
      bytes: that arrive at a device.
      seconds: on links that nothing else uses.
    """

    kind: str
    axes: tuple[str, ...]
    bytes: float
    seconds: float


def collective_kind(instruction: Instruction) -> str | None:
    """Of an instruction that is one, or that starts one; None if it is neither."""
    opcode = instruction.opcode.removesuffix("-start")
    return opcode if opcode in _KINDS else None


def read_collective(
    computation: Computation, instruction: Instruction, mesh: Mesh, topology: Topology
) -> Collective:
    """What `instruction` of `computation`, of which `collective_kind` knows the kind, moves."""
    kind = collective_kind(instruction)
    if kind == "all-reduce" and computation.name.startswith("all-reduce-scatter"):
        kind = "reduce-scatter"
    held = sum(operand.bytes for operand in computation.operands(instruction))
    devices = mesh.devices.flat
    if kind == "collective-permute":
        pairs = permuted_pairs(instruction.attributes)
        moves = pairs[pairs[:, 0] != pairs[:, 1]]
        if not len(moves):
            return Collective(kind, (), 0.0, 0.0)
        slowest = max(
            topology.permute_seconds(held, devices[source], devices[target])
            for source, target in moves
        )
        return Collective(kind, axes_of(pairs, mesh), held, slowest)
    groups = device_groups(instruction.attributes, mesh.size)
    size = groups.shape[1]
    received = held * {
        "all-gather": size - 1,
        "all-reduce": 2 * (size - 1) / size,
        "collective-broadcast": 1,
    }.get(kind, (size - 1) / size)
    seconds = topology.seconds(received, [devices[i] for i in groups[0]])
    return Collective(kind, axes_of(groups, mesh), received, seconds)
