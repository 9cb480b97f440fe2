"""A plan's verdict, from what the compiler says."""

import pytest

from sharding.pod_plan.memory import Memory, bytes_wanted
from sharding.pod_plan.plan import CompileSeconds, Plan, Subject
from sharding.pod_plan.plan_fields import plan_fields
from sharding.pod_plan.report import parse_options, recorded_command, verdict

from .absent_machines import machine

GIB = 2**30
REFUSED = (
    "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries "
    "(82.80G) exceeds available HBM (15.75G)."
)
PLACED = "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 17.50G of 15.75G hbm."


def plan_of(**fields) -> Plan:
    topology, mesh = machine("v5e:2x2")
    groups = {"weights": 2 * GIB, "kept for the backward pass": 80 * GIB, "batch": 100}
    subject = Subject("run", "train", "llama-jax plan run", {"rows": 8}, 4096, 4e12, 8e12, groups)
    return Plan(subject, topology, mesh, CompileSeconds(2.0, 3.0), **fields)


@pytest.mark.parametrize(("text", "wanted"), [(REFUSED, 82.80), (PLACED, 17.50)])
def test_what_the_compiler_wants(text, wanted):
    assert bytes_wanted(RuntimeError(text)) == (wanted * GIB, 15.75 * GIB)


def test_another_error_is_not_for_memory():
    assert bytes_wanted(RuntimeError("INTERNAL: (82.80G) exceeds available HBM (15.75G)")) is None


def test_a_refused_program_says_by_how_much_and_what_takes_most():
    plan = plan_of(wanted=bytes_wanted(RuntimeError(REFUSED)))
    assert not plan.fits
    assert verdict(plan) == (
        "does not fit: run on v5e:2x2, by 67.0 GiB on each device; the most is kept for the "
        "backward pass 80.0 GiB, weights 2.0 GiB, batch 0.0 GiB"
    )
    memory = plan_fields(plan)["memory"]
    assert memory["missing_bytes"] == pytest.approx((82.80 - 15.75) * GIB, abs=1)
    assert memory["groups"]["weights"] == 2 * GIB


@pytest.mark.parametrize(
    ("peak", "fits", "missing"), [(15, True, 0), (16, True, 0), (18, False, 2)]
)
def test_a_placed_program_is_held_against_the_memory(peak, fits, missing):
    memory = Memory(16 * GIB, 4 * GIB, 12 * GIB, 0, 0, peak * GIB)
    plan = plan_of(memory=memory)
    assert plan.fits is fits and plan.missing_bytes == missing * GIB
    assert verdict(plan).startswith("fits: " if fits else "does not fit: ")


def test_a_command_without_where_its_file_goes():
    words = ["--topology", "v5e:4x4", "--json", "/x/y.json", "--quiet", "--rows", "8"]
    assert recorded_command("run", words) == "llama-jax plan run --topology v5e:4x4 --rows 8"
    assert recorded_command("run", ["--json=/x.json"]) == "llama-jax plan run"


def test_options_of_the_compiler():
    words = ("xla_a=true", "--xla_b=x=y")
    assert parse_options(words) == {"xla_a": "true", "xla_b": "x=y"}
