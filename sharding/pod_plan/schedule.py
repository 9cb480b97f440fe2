"""How long a step takes, by walking its program in the order in which it runs.

TPU. Every fusion carries the compiler's estimate of cycles. Those without a matrix product are
overestimated about 2.5 times, so they take at most their bytes at 0.85 of the memory's bandwidth.
Kernels have no estimate: their products at a share of the peak that is assumed.
GPU. There is no estimate: an instruction takes as long as its products at a share of the peak or
its bytes at 0.85 of the bandwidth, whichever is more.

Communication that is started and waited for later takes its links meanwhile; only the waiting is
exposed. Collectives that are not split so are exposed whole. A loop is walked once and multiplied
by its count, and of the branches of a conditional the dearest is taken. Fusions are not entered:
their own figure covers them.
"""

import re
from collections import defaultdict
from dataclasses import dataclass, field

from jax.sharding import Mesh

from sharding.pod_plan.collectives import Collective, collective_kind, read_collective
from sharding.pod_plan.hlo import HOST_MEMORY, Computation, Instruction, Program
from sharding.pod_plan.kernels import kernel_work
from sharding.pod_plan.loops import trip_count
from sharding.pod_plan.moved_bytes import moved_bytes
from sharding.pod_plan.products import product_flops
from sharding.pod_plan.step_work import (
    BANDWIDTH_SHARE,
    GPU_PRODUCT_SHARE,
    CollectiveTotal,
    StepWork,
    add_kernel,
)
from sharding.topology import Topology

_FREE = frozenset((
    "parameter", "constant", "get-tuple-element", "tuple", "bitcast", "after-all", "partition-id",
    "replica-id", "iota", "opt-barrier", "domain", "add-dependency",
))  # fmt: skip


def walk(program: Program, mesh: Mesh, topology: Topology) -> StepWork:
    """What one device does in a step of `program`, compiled for `mesh` on `topology`."""
    walker = _Walker(program, mesh, topology)
    walker.enter(program.entry, 1)
    return walker.work


@dataclass
class _Clock:
    """Time within one computation; when each resource is free; when what was started is there."""

    now: float = 0.0
    free: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    started: dict[str, tuple[float, tuple | str]] = field(default_factory=dict)


class _Walker:
    def __init__(self, program: Program, mesh: Mesh, topology: Topology):
        self.program, self.mesh, self.topology = program, mesh, topology
        self.work = StepWork()
        self.bandwidth = BANDWIDTH_SHARE * topology.peaks.memory_bandwidth

    def enter(self, computation: Computation, times: int) -> float:
        """Adds `times` runs of `computation`; the seconds of one."""
        clock = _Clock()
        for instruction in computation.instructions.values():
            self._step(computation, instruction, times, clock)
        return clock.now

    def _step(self, computation, instruction: Instruction, times: int, clock: _Clock) -> None:
        opcode = instruction.opcode
        if opcode in _FREE:
            return
        if opcode == "while":
            count = trip_count(self.program, computation, instruction)
            if count is None:
                self.work.unknown_loops[instruction.op_name or instruction.name] += times
                count = 1
            body = self.program.computations[instruction.attribute("body")]
            clock.now += count * self.enter(body, times * count)
        elif opcode == "conditional":
            clock.now += self._dearest(instruction, times)
        elif opcode == "call":
            clock.now += self.enter(self.program.computations[instruction.calls], times)
        elif opcode.endswith("-done") or self._holds(instruction, "AsyncCollectiveDone"):
            self._wait(computation, instruction, times, clock)
        elif opcode.endswith("-update"):
            self._hand_on(instruction, clock)
        elif moved := self._collective(computation, instruction):
            is_started = opcode.endswith("-start") or self._holds(
                instruction, "AsyncCollectiveStart"
            )
            self._communicate(instruction, moved, times, clock, is_started)
        elif opcode == "copy-start":
            self._copy(computation, instruction, clock)
        elif opcode == "custom-call" and self._kernel(computation, instruction, times, clock):
            return
        else:
            self._compute(computation, instruction, times, clock)

    def _dearest(self, instruction: Instruction, times: int) -> float:
        names = re.search(r"branch_computations=\{([^}]*)\}", instruction.attributes)
        branches = (
            re.findall(r"%([\w.\-]+)", names.group(1))
            if names
            else [instruction.attribute(f"{word}_computation") for word in ("true", "false")]
        )
        found = []
        for name in branches:
            one = _Walker(self.program, self.mesh, self.topology)
            found.append((one.enter(self.program.computations[name], times), one.work))
        seconds, work = max(found, key=lambda pair: pair[0])
        self.work.add(work)
        return seconds

    def _holds(self, instruction: Instruction, target: str) -> bool:
        """Whether a fusion begins or ends a collective, which others of its name go on with."""
        return instruction.opcode == "fusion" and any(
            one.target == target for one in self._inside(instruction).instructions.values()
        )

    def _inside(self, instruction: Instruction) -> Computation:
        return self.program.computations[instruction.calls]

    def _collective(self, computation, instruction: Instruction):
        """The collectives that `instruction` is, starts or is fused with; those which products go
        on with belong to the fusion that started them."""
        if collective_kind(instruction):
            return [read_collective(computation, instruction, self.mesh, self.topology)]
        if instruction.opcode not in ("fusion", "async-start") or not instruction.calls:
            return []
        inner = self._inside(instruction)
        if inner.name.startswith("async_collective_fusion"):
            return []
        return [
            read_collective(inner, one, self.mesh, self.topology)
            for one in inner.instructions.values()
            if collective_kind(one)
        ]

    def _communicate(self, instruction, moved: list[Collective], times, clock, is_started) -> None:
        # SparseCores move data beside the links' own engines; both share the links.
        begin = max(clock.now, clock.free["links"])
        end = begin + sum(one.seconds for one in moved)
        clock.free["links"] = end
        total = None
        for one in moved:
            key = (one.kind, one.axes)
            total = self.work.collectives.setdefault(key, CollectiveTotal(one.kind, one.axes))
            total.count += times
            total.bytes += times * one.bytes
            total.seconds += times * one.seconds
        if is_started:
            clock.started[self._handle(instruction)] = (end, (total.kind, total.axes))
        else:
            total.exposed_seconds += times * (end - clock.now)
            clock.now = end

    def _handle(self, instruction: Instruction) -> str:
        """By what the end of something that was started knows its beginning: a fused collective by
        its channel, others by name."""
        if instruction.opcode == "fusion":
            for one in self._inside(instruction).instructions.values():
                if collective_kind(one):
                    return f"channel {one.attribute('channel_id')}"
        return instruction.name

    def _wait(self, computation, instruction: Instruction, times: int, clock: _Clock) -> None:
        handle = self._handle(instruction)
        if instruction.opcode != "fusion":
            handle = instruction.operands[0] if instruction.operands else handle
        end, what = clock.started.pop(handle, (clock.now, None))
        waiting = max(0.0, end - clock.now)
        if isinstance(what, tuple):
            self.work.collectives[what].exposed_seconds += times * waiting
        else:
            self.work.host_seconds += times * waiting
        clock.now += waiting

    def _hand_on(self, instruction: Instruction, clock: _Clock) -> None:
        if instruction.operands and instruction.operands[0] in clock.started:
            clock.started[instruction.name] = clock.started.pop(instruction.operands[0])

    def _copy(self, computation, instruction: Instruction, clock: _Clock) -> None:
        """To or from the host; what moves within the device's own memories is not waited for."""
        source = computation.operands(instruction)[0].shapes[0]
        target = instruction.shapes[0]
        is_out, is_in = (shape.space == HOST_MEMORY for shape in (target, source))
        if is_out == is_in:
            return
        way = "out" if is_out else "in"
        begin = max(clock.now, clock.free[way])
        clock.free[way] = begin + source.bytes / self.topology.host_bandwidth
        clock.started[instruction.name] = (clock.free[way], way)

    def _kernel(self, computation, instruction: Instruction, times: int, clock: _Clock) -> bool:
        """Counts a custom call; False for one that is a matrix product of a library."""
        if product_flops(self.program, computation, instruction):
            return False
        work = kernel_work(computation, instruction)
        if work is None:
            return True
        if work.flops is None:
            self.work.unknown_kernels[work.name] += times
            return True
        clock.now += add_kernel(
            self.work, self.topology, flops=work.flops, num_bytes=work.bytes, times=times
        )
        return True

    def _compute(self, computation, instruction: Instruction, times: int, clock: _Clock) -> None:
        flops = product_flops(self.program, computation, instruction)
        moving = moved_bytes(self.program, computation, instruction) / self.bandwidth
        if self.topology.is_tpu:
            cycles = instruction.estimated_cycles
            seconds = (cycles or 0) / self.topology.kind.clock
            if not flops:
                seconds = min(seconds, moving)
        else:
            peak = GPU_PRODUCT_SHARE * self.topology.peaks.bf16_flops
            seconds = max(flops / peak, moving)
        if flops:
            self.work.product_flops += times * flops
            self.work.matrix_seconds += times * seconds
        else:
            self.work.vector_seconds += times * seconds
        clock.now += seconds
