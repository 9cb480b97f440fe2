"""A plan as a file has it: JSON-ready, with units in the names."""

import dataclasses
from typing import Any

from llama_jax.machine_description import describe_machine
from sharding.pod_plan.plan import Plan
from sharding.pod_plan.step_work import CollectiveTotal, StepWork
from sharding.topology import Topology


def plan_fields(plan: Plan) -> dict[str, Any]:
    """All numbers of `plan`, of one device where the name does not say otherwise."""
    subject, topology = plan.subject, plan.topology
    fields = {
        "command": subject.command,
        "name": subject.name,
        "program": subject.program,
        "topology": topology.name,
        "device_kind": topology.device_kind,
        "devices": plan.mesh.size,
        "mesh": dict(plan.mesh.shape),
        **subject.settings,
        "machine": describe_machine(("jax", "jaxlib", _compiler(topology), "flax", "optax")),
        "tokens_per_step": subject.tokens,
        "compile_seconds": round(plan.compile_seconds.elapsed, 1),
        "compile_core_seconds": round(plan.compile_seconds.busy, 1),
        "fits": plan.fits,
    }
    if plan.memory is None:
        wanted, there = plan.wanted
        fields["memory"] = {
            "peak": round(wanted),
            "capacity": round(there),
            "missing_bytes": round(plan.missing_bytes),
            "groups": subject.groups,
        }
        return fields | {"notes": plan.notes}
    fields["memory"] = dataclasses.asdict(plan.memory) | {"missing_bytes": plan.missing_bytes}
    work = plan.work
    quick, slow = (max(each, subject.least_seconds) for each in work.range_seconds)
    fields |= {
        "flops_per_device": {
            "model_causal": subject.flops_causal / plan.mesh.size,
            "model_full": subject.flops_full / plan.mesh.size,
            "executed_products": work.product_flops,
            "executed_kernels": work.kernel_flops,
        },
        "collectives": [_collective_fields(one) for one in sorted_collectives(work)],
        "step_seconds": {
            "predicted": plan.seconds,
            "quick": quick,
            "slow": slow,
            "matrix_unit": work.matrix_seconds,
            "vector_unit": work.vector_seconds,
            "kernels": work.kernel_seconds,
            "exposed_communication": work.exposed_seconds,
            "exposed_host_copies": work.host_seconds,
            "least_by_memory": subject.least_seconds,
        },
        "tokens_per_second": subject.tokens / plan.seconds,
        "tokens_per_second_per_device": subject.tokens / plan.seconds / plan.mesh.size,
        "mfu_causal": plan.mfu(subject.flops_causal),
        "mfu_full": plan.mfu(subject.flops_full),
        "peak_flops_per_device": topology.peaks.bf16_flops,
    }
    return fields | {"notes": plan.notes}


def _compiler(topology: Topology) -> str:
    """The package whose compiler it is."""
    return "libtpu" if topology.is_tpu else "jax-cuda13-plugin"


def sorted_collectives(work: StepWork) -> list[CollectiveTotal]:
    """Those that take longest first."""
    return sorted(work.collectives.values(), key=lambda one: -one.seconds)


def _collective_fields(one: CollectiveTotal) -> dict[str, Any]:
    return {
        "kind": one.kind,
        "axes": list(one.axes),
        "count": one.count,
        "bytes": one.bytes,
        "seconds": one.seconds,
        "exposed_seconds": one.exposed_seconds,
    }
