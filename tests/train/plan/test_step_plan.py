"""Plans of a small model's step: memory, work and traffic by hand, and what is refused."""

import contextlib
import dataclasses
import io
import json

import pytest

from llama_jax import costs
from llama_jax.__main__ import main
from llama_jax.errors import InputError
from llama_jax.model.remat import REMAT_POLICIES, kept_bytes_per_token
from sharding.mesh import MeshShape, make_mesh
from sharding.pod_plan.plan_fields import plan_fields
from sharding.pod_plan.report import verdict
from sharding.topology import find_topology
from train.config import BatchStep
from train.losses.dpo import Dpo
from train.plan.step_plan import plan_step
from train.plan.step_program import step_arguments
from train.plan.tensor_groups import tensor_groups

from . import small_plans
from .small_plans import MODEL, small_run


def plan_of(run, target="v5e:2x2", rows=8, parts=1, **options):
    pytest.importorskip("jax_plugins.xla_cuda13" if target.startswith("h") else "libtpu")
    step = BatchStep(0, rows, parts)
    topology = find_topology(target)
    return plan_step(run, 0, step, topology, name="small", command="llama-jax plan", **options)


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """What `llama-jax plan` of this file's run leaves: its exit code, output, and the file."""
    pytest.importorskip("libtpu")
    path = tmp_path_factory.mktemp("plan") / "plan.json"
    words = [f"{small_plans.__file__}:small_run", "--topology", "v5e:2x2", "--remat", "full"]
    shown = io.StringIO()
    with pytest.raises(SystemExit) as ended, contextlib.redirect_stdout(shown):
        main(["plan", *words, "--json", str(path)])
    return ended.value.code, shown.getvalue(), json.loads(path.read_text())


@pytest.fixture(scope="module")
def fields(command):
    return command[2]


def test_work_is_that_of_the_formula(fields):
    """Three products for each of the forward pass; one more for the head, whose logits are never
    kept, and with full remat for each weight of a block but the last, whose result nobody needs."""
    tokens = 8 * 512
    head = MODEL.vocab_size * MODEL.model_dim
    blocks = costs.matmul_parameters(MODEL) - head
    again = blocks - MODEL.num_layers * MODEL.feed_forward_dim * MODEL.model_dim
    flops = fields["flops_per_device"]
    assert flops["executed_products"] == 2 * tokens * (3 * blocks + again + 4 * head) / 4
    assert flops["model_causal"] == 3 * tokens * costs.forward_flops_per_token(MODEL, 256.5) / 4
    # Attention: forward, forward again, and a backward pass of five; one block holds the row.
    heads = MODEL.num_layers * MODEL.num_heads * MODEL.head_dim
    assert flops["executed_kernels"] == (2 + 2 + 5) * 2 * 2 * heads * 512 * 512
    assert fields["mfu_causal"] < fields["mfu_full"] < 1
    assert not fields["notes"]


def test_memory_is_what_the_state_takes(fields):
    groups = fields["memory"]["groups"]
    parameters = costs.num_parameters(MODEL)
    assert groups["weights"] == parameters  # 4 bytes, on four devices
    assert 0 <= groups["moments"] - 2 * parameters < 64  # and counters
    assert (groups["gradients"], groups["weights in bfloat16"]) == (parameters, parameters / 2)
    # Block inputs of two rows.
    assert groups["kept for the backward pass"] == 3 * 2 * 512 * MODEL.model_dim * 2
    arguments = groups["weights"] + groups["moments"] + groups["batch"]
    assert 0 <= fields["memory"]["arguments"] - arguments < 2**16  # in whole tiles
    assert fields["fits"] and fields["memory"]["missing_bytes"] == 0


def test_every_gather_and_every_gradient_is_seen(fields):
    assert {tuple(one["axes"]) for one in fields["collectives"]} == {("fsdp",)}
    received = sum(one["bytes"] for one in fields["collectives"])
    # At least: each block's weights twice in bfloat16, and their gradients once.
    blocks = costs.num_parameters(MODEL) - 2 * MODEL.vocab_size * MODEL.model_dim
    assert received > 3 / 4 * blocks * (2 * 2 + 2)


def test_parts_of_the_step_add_up(fields):
    seconds = fields["step_seconds"]
    waits = ("exposed_communication", "exposed_host_copies")
    parts = ("matrix_unit", "vector_unit", "kernels", *waits)
    assert seconds["predicted"] == pytest.approx(sum(seconds[part] for part in parts))
    assert seconds["quick"] < seconds["predicted"] < seconds["slow"]


def test_the_command_shows_it_and_writes_a_file(command):
    code, shown, fields = command
    assert code == 0 and max(map(len, shown.splitlines())) <= 80
    assert "MFU" in shown and "fits: " in shown.splitlines()[-2] + shown.splitlines()[-1]
    # The command as it can be given again, without where its file went.
    assert "--json" not in fields["command"] and fields["command"].endswith("--remat full")
    assert (fields["stage"], fields["rows"], fields["devices"]) == ("pretrain", 8, 4)
    assert fields["machine"]["libtpu"]


@pytest.mark.slow
def test_a_gpu_node_takes_other_attention_and_says_so():
    run = small_run(remat="attention")
    plan = plan_of(dataclasses.replace(run, mesh=MeshShape(fsdp=2, tensor=2)), "h100:2x2")
    fields = plan_fields(plan)
    assert "cudnn" in fields["notes"][0] and fields["attention"] == ["mosaic_gpu", "chunked"]
    axes = {tuple(one["axes"]) for one in fields["collectives"]}
    assert {("fsdp",), ("tensor",)} <= axes
    # Attention: forward, three products for the queries' gradient and four for the others'.
    heads = MODEL.num_layers * MODEL.num_heads * MODEL.head_dim // 2
    flops = fields["flops_per_device"]["executed_kernels"]
    assert flops == (2 + 3 + 4) * 2 * 4 * heads * 512 * 512
    with pytest.raises(InputError, match="plan with --attention mosaic_gpu"):
        plan_of(dataclasses.replace(run, attention=("cudnn",)), "h100:2")


@pytest.mark.slow
def test_what_does_not_fit_says_by_how_much_and_what_takes_most():
    """Sixteen thousand rows on four small chips: 512 GiB of logits and activations."""
    plan = plan_of(small_run(remat="products"), rows=2**14)
    assert not plan.fits and plan.work is None
    line = verdict(plan)
    assert line.startswith("does not fit: small on v5e:2x2, by ") and "\n" not in line
    assert "kept for the backward pass" in line.partition("the most is")[2].partition(",")[0]
    fields = plan_fields(plan)
    missing = fields["memory"]["missing_bytes"]
    assert not fields["fits"] and missing > 2**30
    assert f"by {missing / 2**30:.1f} GiB" in line


@pytest.mark.parametrize(
    ("run", "options", "words"),
    [
        (small_run(), {"rows": 9}, r"batch\[0\].rows: 9 is not a multiple of 4"),
        (dataclasses.replace(small_run(), mesh=MeshShape(fsdp=3)), {}, "does not divide 4 devices"),
        (dataclasses.replace(small_run(), remat="some"), {}, "remat: must be one of"),
    ],
)
def test_numbers_that_cannot_be(run, options, words):
    with pytest.raises(InputError, match=words):
        plan_of(run, **options)


def test_the_reference_policy_of_dpo_is_a_group_of_its_own():
    pytest.importorskip("libtpu")
    mesh = make_mesh(MeshShape(fsdp=4), find_topology("v5e:2x2").devices)
    run = small_run()
    found = {}
    for reference in ("stored", "in_memory"):
        stage = dataclasses.replace(run.stages[0], loss=Dpo(reference=reference), reference="x")
        run = dataclasses.replace(run, stages=(stage,))
        step = BatchStep(0, 8, 2)
        arguments = step_arguments(run, 0, mesh, step)
        found[reference] = tensor_groups(run, 0, mesh, step, arguments)
    parameters = costs.num_parameters(MODEL)
    assert "reference policy" not in found["stored"]
    assert found["in_memory"]["reference policy"] == parameters / 2
    # Two micro-batches: their sum, and one of them.
    assert found["stored"]["gradients"] == 2 * parameters
    assert found["stored"]["kept for the backward pass"] == 3 * 512 * MODEL.model_dim * 2


def test_kept_bytes_of_the_policies():
    D, N, K, F = 256, 4 * 128, 2 * 128, 512
    expected = {
        "full": 2 * D,
        "attention": 2 * (D + N) + 4 * 4,
        "projections": 2 * (D + 2 * N + 2 * K) + 4 * 4,
        "products": 2 * (2 * D + 2 * N + 2 * K + 2 * F) + 4 * 4,
        "none": None,
    }
    found = {name: kept_bytes_per_token(MODEL, name, 2) for name in REMAT_POLICIES}
    assert found == expected


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["tiny_cpu"], "--topology"),
        (["tiny_cpu", "--topology", "v5q:2x2"], "names are like"),
        (["tiny_cup", "--topology", "v5e:2x2"], "did you mean tiny_cpu"),
        (["tiny_cpu", "--topology", "v5e:2x2", "--stage", "sft"], "the run has pretrain, anneal"),
        (["tiny_cpu", "--topology", "v5e:2x2", "--mesh.fsdpp", "4"], "--mesh.fsdp"),
        (["tiny_cpu", "--topology", "v5e:2x2", "--mesh.fsdp", "3"], "does not divide 4 devices"),
        (["tiny_cpu", "--topology", "v5e:2x2", "--compiler-options", "x"], "must be NAME=VALUE"),
        (["tiny_cpu", "--topology", "v5e:2x2", "--json", "no/where.json"], "its folder does not"),
        (["--topology", "v5e:2x2"], "the run or model comes first"),
        (["llama31_8b", "--topology", "h100:8", "--recipe", "int3"], "recipe 'int3' is not one of"),
        (["llama31_8b", "--topology", "h100:3"], "do not divide"),
    ],
)
def test_mistakes_are_one_line(words, message, capsys):
    pytest.importorskip("libtpu")
    pytest.importorskip("jax_plugins.xla_cuda13")
    with pytest.raises(SystemExit) as ended:
        main(["plan", *words])
    error = capsys.readouterr().err
    assert ended.value.code == 2 and error.count("\n") == 1 and message in error
