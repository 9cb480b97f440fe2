"""A plan: what one program needs, moves and takes on a machine that is not here, and whether it
fits."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from sharding.pod_plan.hlo import parse_program
from sharding.pod_plan.memory import Memory, bytes_wanted, compiled_memory
from sharding.pod_plan.schedule import walk
from sharding.pod_plan.step_work import StepWork, add_kernel
from sharding.topology import Topology


@dataclass(frozen=True)
class HiddenWork:
    """What one device does in loops and kernels that go on as long as data says, which the program
    does not tell: the attention of an engine.

    Attributes:
      flops: of matrix products.
      bytes: read from its memory.
    """

    flops: float = 0.0
    bytes: float = 0.0


@dataclass(frozen=True)
class Subject:
    """What is planned.

    Attributes:
      name: of the run or the model.
      program: `train`, `decode` or `prefill`.
      command: that makes the plan.
      settings: what of it decides memory and time, for people and for the file.
      tokens: that a step works on, over all devices.
      flops_causal: of a step, by `llama_jax/costs.py`, each query counted with the keys it may see.
      flops_full: the same with all keys of its row.
      groups: bytes of one device by name: of arguments, and of temporaries that a formula knows.
      hidden: work that the program does not tell.
      least_seconds: below which no step can be, by what it must read and multiply; 0 where nobody
        asks.
    """

    name: str
    program: str
    command: str
    settings: dict[str, Any]
    tokens: int
    flops_causal: float
    flops_full: float
    groups: dict[str, int]
    hidden: HiddenWork = HiddenWork()
    least_seconds: float = 0.0


class CompileSeconds(NamedTuple):
    """How long a compiler took here.

    Attributes:
      elapsed: on the clock, whatever else the machine did.
      busy: of all cores together.
    """

    elapsed: float
    busy: float


@dataclass(frozen=True)
class Plan:
    """A program on a machine.

    Attributes:
      compile_seconds: tracing included.
      memory: None of a program that the compiler refused for its memory before it placed it.
      wanted: bytes that such a program needs, and that there are.
      work: what a device does in a step; None with `wanted`.
      notes: what a reader should know of the numbers.
    """

    subject: Subject
    topology: Topology
    mesh: Mesh
    compile_seconds: CompileSeconds
    memory: Memory | None = None
    wanted: tuple[float, float] | None = None
    work: StepWork | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def fits(self) -> bool:
        return self.memory is not None and self.memory.fits

    @property
    def missing_bytes(self) -> float:
        """By how much it does not fit; 0 if it does."""
        if self.memory is None:
            wanted, there = self.wanted
            return wanted - there
        return max(0.0, self.memory.peak - self.memory.capacity)

    @property
    def seconds(self) -> float:
        """Of a step."""
        return max(self.work.seconds, self.subject.least_seconds)

    def mfu(self, flops: float) -> float:
        """The share of all devices' bfloat16 peak that a step of `flops` uses."""
        return flops / (self.seconds * self.mesh.size * self.topology.peaks.bf16_flops)


def make_plan(
    subject: Subject,
    mesh: Mesh,
    topology: Topology,
    compile_program: Callable[[], jax.stages.Compiled],
    *,
    notes: tuple[str, ...] = (),
) -> Plan:
    """Compiles and reads. Whatever the compiler refuses for another reason than memory is raised.

    Args:
      compile_program: the real program on `mesh`, as the job would run it.
    """
    start, busy = time.perf_counter(), time.process_time()
    notes = list(notes)
    try:
        compiled = compile_program()
    except jax.errors.JaxRuntimeError as error:
        if (wanted := bytes_wanted(error)) is None:
            raise
        compiled = None
    seconds = CompileSeconds(time.perf_counter() - start, time.process_time() - busy)
    if compiled is None:
        return Plan(subject, topology, mesh, seconds, wanted=wanted, notes=notes)
    memory = compiled_memory(compiled, capacity=topology.peaks.memory_bytes, groups=subject.groups)
    work = walk(parse_program(compiled.as_text()), mesh, topology)
    notes += _doubts(work, subject.hidden)
    add_kernel(work, topology, flops=subject.hidden.flops, num_bytes=subject.hidden.bytes)
    return Plan(subject, topology, mesh, seconds, memory=memory, work=work, notes=notes)


def _doubts(work: StepWork, hidden: HiddenWork) -> list[str]:
    """What the estimate leaves out."""
    if hidden != HiddenWork():
        kernels = f" and {', '.join(work.unknown_kernels)}" if work.unknown_kernels else ""
        return [
            f"loops{kernels}, whose length depends on data, are one turn in the program; attention "
            "is counted by formula"
        ]
    notes = [
        f"{count:,} calls of the kernel {name} have no known work: their time is not counted"
        for name, count in work.unknown_kernels.items()
    ]
    if work.unknown_loops:
        places = sorted({name.rsplit("/", 3)[0][-60:] for name in work.unknown_loops})
        notes.append(
            f"loops in {', '.join(places)} go on as long as data says and are counted once"
        )
    return notes
