"""What the compilers say of a kernel, on a machine that cannot run it.

For a GPU the custom calls of Mosaic GPU are compiled down to machine code: its PTX, and what
`ptxas` reports of registers, spills and serialised matrix products. For a TPU the compiler's own
estimate of cycles, for what is not a Pallas kernel: those carry none.
"""

import contextlib
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import jax
from jax.sharding import SingleDeviceSharding

from llama_jax.compile_targets import target_devices

# The compiler has no estimate.
_NO_ESTIMATE = 2**63 - 1
# Mosaic compiles a kernel once in a process, and says nothing of it again: text of a lowered
# program -> reports of its kernels.
_reported: dict[str, tuple["KernelReport", ...]] = {}


@dataclass(frozen=True)
class KernelReport:
    """One Mosaic GPU kernel.

    Attributes:
      name: of the function that `plgpu.kernel` was given.
      registers: a thread's at launch; warp-specialised kernels shift them between warpgroups.
      spill_bytes: of registers kept in memory, stores and loads.
      shared_memory_bytes: dynamic shared memory of a block, as the launch asks for it.
      warnings: lines of `ptxas` that warn, about serialised `wgmma` for one.
      ptx: the text that `ptxas` was given.
    """

    name: str
    registers: int
    spill_bytes: int
    shared_memory_bytes: int
    warnings: tuple[str, ...]
    ptx: str

    def count(self, instruction: str) -> int:
        """How often PTX instructions that begin with `instruction` stand in the text."""
        return len(re.findall(rf"(?m)(?:^|[\s;])(?:@!?%\w+\s+)?{re.escape(instruction)}", self.ptx))


@dataclass(frozen=True)
class GpuReport:
    """A program compiled for a GPU.

    Attributes:
      kernels: its Mosaic GPU kernels, in order of name.
      hlo: the optimised program.
      compiled: the executable; `memory_analysis()` is per device.
    """

    kernels: tuple[KernelReport, ...]
    hlo: str
    compiled: jax.stages.Compiled


@dataclass(frozen=True)
class TpuReport:
    """A program compiled for a TPU.

    Attributes:
      estimated_cycles: sum over the instructions that carry an estimate, each counted once: the
        body of a loop too, and Pallas kernels not at all.
      hlo: the optimised program.
      compiled: the executable; `memory_analysis()` is per device.
    """

    estimated_cycles: int
    hlo: str
    compiled: jax.stages.Compiled


def compile_for_gpu(
    function: Callable,
    *arguments: jax.ShapeDtypeStruct,
    target: str = "h100",
    options: dict[str, bool | int | str] | None = None,
) -> GpuReport:
    """Compiles `function` for one GPU.

    Args:
      arguments: a tree of shapes for each argument.
      target: of `llama_jax.compile_targets`.
      options: XLA flags without dashes, such as `{"xla_gpu_enable_triton_gemm": False}`.

    Raises:
      RuntimeError: another program of this process has compiled the same kernels before, and the
        compiler says nothing of them again.
    """
    lowered = _lower(function, arguments, target_devices(target)[0], "cuda")
    program = lowered.as_text()
    with tempfile.TemporaryDirectory() as folder, _dump_to(folder):
        compiled = lowered.compile(options)
        kernels = tuple(_read(path) for path in sorted(Path(folder).glob("*.ptx")))
    kernels = _reported.setdefault(program, kernels)
    if not kernels and "mosaic_gpu" in program:
        raise RuntimeError("these kernels were compiled before, as part of another program")
    return GpuReport(kernels, compiled.as_text(), compiled)


def compile_for_tpu(
    function: Callable, *arguments: jax.ShapeDtypeStruct, target: str = "v5p:2x2x1"
) -> TpuReport:
    """Compiles `function` for one TPU chip of topology `target`."""
    compiled = _lower(function, arguments, target_devices(target)[0], "tpu").compile()
    hlo = compiled.as_text()
    cycles = [int(number) for number in re.findall(r'"estimated_cycles":"(\d+)"', hlo)]
    return TpuReport(sum(n for n in cycles if n != _NO_ESTIMATE), hlo, compiled)


def _lower(function, arguments, device, platform: str):
    here = SingleDeviceSharding(device)
    arguments = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), arguments
    )
    return jax.jit(function).trace(*arguments).lower(lowering_platforms=(platform,))


@contextlib.contextmanager
def _dump_to(folder: str) -> Iterator[None]:
    names = {
        "MOSAIC_GPU_DUMP_TO": folder,
        "MOSAIC_GPU_DUMP_PTX": "1",
        "MOSAIC_GPU_DUMP_PTXAS": "1",
    }
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(names)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _read(path: Path) -> KernelReport:
    ptx, report = path.read_text(), path.with_suffix(".ptxas").read_text()
    spills = re.findall(r"(\d+) bytes spill (?:stores|loads)", report)
    (registers,) = re.findall(r"Used (\d+) registers", report)
    passes = path.with_suffix(".mlir-passes.log").read_text()
    shared_memory = re.search(r"dynamic_shared_memory_size %c(\d+)_i32", passes).group(1)
    (name,) = re.findall(r"\.entry (\w+?)(?:_mosaic_gpu_kernel)?\(", ptx)
    return KernelReport(
        name=name,
        registers=int(registers),
        spill_bytes=sum(map(int, spills)),
        shared_memory_bytes=int(shared_memory),
        warnings=tuple(line for line in report.splitlines() if "arning" in line),
        ptx=ptx,
    )
