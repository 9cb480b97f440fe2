"""Which mesh, remat policy and number of micro-batches make a step quickest on a machine.

All that the numbers allow are ordered by a rough formula of their time, those that cannot fit by
the formulas of memory are left out, and the first few are compiled, several at once in processes of
their own. What was compiled is ranked by the time that its plan predicts.
"""

import dataclasses
import itertools
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp

from llama_jax.costs import forward_flops_per_token, num_parameters
from llama_jax.errors import InputError
from sharding.mesh import MeshShape, make_mesh
from sharding.pod_plan.plan_fields import plan_fields
from sharding.topology import Topology, find_topology
from train.config import BatchStep, RunConfig
from train.plan.step_plan import plan_step, planned_part
from train.plan.step_program import step_arguments
from train.plan.tensor_groups import tensor_groups
from train.run_checks import check_run

_MICRO_BATCHES = (1, 2, 4, 8)
_TENSOR = (1, 2, 4, 8)
# Of the forward pass, what a policy computes again; of `full` all but the last product of a block.
# `none` is not tried: no formula says what it keeps.
_AGAIN = {"products": 0.05, "projections": 0.65, "attention": 0.75, "full": 0.85}


@dataclass(frozen=True)
class Candidate:
    """Attributes:
    seconds: of a step, by the rough formula that orders candidates.
    """

    mesh: MeshShape
    remat: str
    micro_batches: int
    seconds: float

    def of(self, run: RunConfig) -> RunConfig:
        """`run` so arranged."""
        return dataclasses.replace(run, mesh=self.mesh, remat=self.remat)


def candidates(
    run: RunConfig, stage: int, rows: int, topology: Topology
) -> tuple[list[Candidate], int]:
    """Those that may fit, the quickest by formula first, and how many cannot."""
    found, too_large = [], 0
    arguments = {}  # how a step is split into micro-batches changes none of their bytes
    for mesh, remat, parts in _allowed(run, stage, rows, topology):
        one = dataclasses.replace(run, mesh=mesh, remat=remat)
        step = BatchStep(0, rows, parts)
        if mesh not in arguments:
            on = make_mesh(mesh, topology.devices)
            arguments[mesh] = on, step_arguments(one, stage, on, step)
        on, given = arguments[mesh]
        if sum(tensor_groups(one, stage, on, step, given).values()) > topology.peaks.memory_bytes:
            too_large += 1
            continue
        seconds = _rough_seconds(one, stage, step, topology)
        found.append(Candidate(mesh, remat, parts, seconds))
    return sorted(found, key=lambda one: one.seconds), too_large


def search(
    run: RunConfig,
    stage: int,
    rows: int,
    topology: Topology,
    *,
    name: str,
    command: str,
    options: dict[str, str],
    most: int,
    processes: int,
    say: Callable[[str], None],
) -> list[dict[str, Any]]:
    """`plan_fields` of at most `most` candidates, those that fit first, the quickest before others.

    Args:
      processes: how many compile at once, some gigabytes of memory each.
      say: is told each one as it is done.

    Raises `InputError` if none may fit.
    """
    chosen, too_large = candidates(run, stage, rows, topology)
    if not chosen:
        raise InputError(
            f"search: of {too_large} arrangements on {topology.name} none has room for weights, "
            "moments, gradients and what the backward pass keeps; take more devices or fewer rows"
        )
    say(f"{len(chosen)} arrangements may fit, {too_large} cannot; {min(most, len(chosen))} compile")
    done = []
    # Each compiler in a fresh process: neither threads nor libtpu's state survive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        futures = {
            pool.submit(
                _plan_one,
                one.of(run),
                stage,
                BatchStep(0, rows, one.micro_batches),
                topology.name,
                name=name,
                command=command,
                options=options,
            ): one
            for one in chosen[:most]
        }
        for future in as_completed(futures):
            fields = future.result()
            done.append(fields)
            say(f"{len(done)} of {len(futures)}: {arrangement(fields)}")
    return sorted(done, key=_rank)


def arrangement(fields: dict[str, Any]) -> str:
    """A candidate and how it came out, in a line."""
    mesh = " ".join(f"{axis} {size}" for axis, size in fields["mesh"].items() if size > 1)
    parts = fields["micro_batches"]
    line = f"{mesh}, remat {fields['remat']}, {parts} micro-batch{'es' if parts > 1 else ''}"
    if not fields["fits"]:
        return f"{line}: does not fit, by {fields['memory']['missing_bytes'] / 2**30:.1f} GiB"
    share = fields["memory"]["peak"] / fields["memory"]["capacity"]
    return (
        f"{line}: {fields['step_seconds']['predicted']:.4g} s, MFU {fields['mfu_causal']:.1%}, "
        f"{share:.0%} of memory"
    )


def _plan_one(run, stage, batch_step, topology_name: str, **words) -> dict[str, Any]:
    """In a process of its own."""
    import jax

    jax.config.update("jax_platforms", "cpu")
    return plan_fields(plan_step(run, stage, batch_step, find_topology(topology_name), **words))


def _allowed(
    run: RunConfig, stage: int, rows: int, topology: Topology
) -> Iterator[tuple[MeshShape, str, int]]:
    """All that the run's own checks allow."""
    num_devices = len(topology.devices)
    # Slices, between which only `data` may lie.
    slices = len({getattr(one, "slice_index", None) or 0 for one in topology.devices})
    for tensor, remat, parts in itertools.product(_TENSOR, _AGAIN, _MICRO_BATCHES):
        rest, left = divmod(num_devices, tensor * slices)
        mesh = MeshShape(data=slices, fsdp=rest, tensor=tensor)
        one = dataclasses.replace(run, mesh=mesh, remat=remat)
        try:
            check_run(planned_part(one, stage, BatchStep(0, rows, parts)), num_devices)
        except InputError:
            continue
        if not left:
            yield mesh, remat, parts


def _rough_seconds(run: RunConfig, stage: int, step: BatchStep, topology: Topology) -> float:
    """Products and what is computed again at the peak; each weight gathered twice and its gradient
    scattered once for each micro-batch; the residual stream exchanged over `tensor`."""
    model, length = run.model, run.stages[stage].row_length
    mesh = run.mesh
    tokens = step.rows * length / (mesh.data * mesh.fsdp)  # of one row of `tensor`
    flops = tokens / mesh.tensor * forward_flops_per_token(model, (length + 1) / 2)
    itemsize = jnp.dtype(run.compute_dtype).itemsize
    weights = (2 * itemsize + 4) * num_parameters(model) / mesh.tensor * step.micro_batches
    residual = 8 * model.num_layers * tokens * model.model_dim * itemsize
    residual *= 1 - 1 / mesh.tensor
    seconds = (3 + _AGAIN[run.remat]) * flops / topology.peaks.bf16_flops
    return seconds + (weights + residual) / topology.kind.links.near


def _rank(fields: dict[str, Any]) -> tuple[bool, float]:
    if not fields["fits"]:
        return (True, fields["memory"]["missing_bytes"])
    return (False, fields["step_seconds"]["predicted"])
