"""Every config builds, adds up, fits its machine and says what it is."""

import dataclasses
import importlib
import inspect
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest

import train.config
import train.schedules
from configs import meshes
from configs.anneal_405b import anneal_405b
from configs.distill_8b import distill_8b
from configs.dpo_8b import dpo_8b
from configs.llama_405b import llama_405b
from configs.long_context_405b import long_context_405b
from configs.pretrain_8b import pretrain_8b
from configs.pretrain_70b import pretrain_70b
from configs.pretrain_405b import pretrain_405b
from configs.pretrain_405b_65m import pretrain_405b_65m
from configs.registry import RUNS
from configs.reward_8b import reward_8b
from configs.sft_8b import sft_8b
from configs.tiny_cpu import tiny_cpu
from llama_jax.config import LLAMA_31_405B
from llama_jax.costs import num_parameters
from sharding.mesh import MeshShape
from train.data.batch_schedule import BatchSchedule
from train.run_checks import check_run

ROOT = Path(__file__).parents[2]

# Devices of the machine that the docstring names.
DEVICES = {
    "tiny_cpu": (1, 2, 4, 8),
    "pretrain_8b": (16,),
    "pretrain_70b": (1024,),
    "pretrain_405b": (4096,),
    "pretrain_405b_65m": (4096,),
    "long_context_405b": (1024,),
    "anneal_405b": (512,),
    "llama_405b": (1024,),
    "sft_8b": (16,),
    "reward_8b": (16,),
    "dpo_8b": (16,),
    "distill_8b": (16,),
    "round_reward_8b": (16,),
    "round_sft_8b": (16,),
    "round_dpo_8b": (16,),
    "smollm2_sums_sft": (1, 2),
    "smollm2_sums_selected": (1, 2),
}


def function_of(name):
    module, function = RUNS[name].split(":")
    return getattr(importlib.import_module(module), function)


def steps_of(stage):
    return BatchSchedule(stage.batch, row_length=stage.row_length).steps_for(stage.num_tokens)


def rates(stage, steps, first_step=0):
    num_steps = steps_of(stage)
    rate = stage.learning_rate.rate
    return [float(rate(step, first_step=first_step, num_steps=num_steps)) for step in steps]


@pytest.mark.parametrize("name", RUNS)
def test_a_run_fits_its_machine(name):
    for num_devices in DEVICES[name]:
        mesh = check_run(function_of(name)(), num_devices)
        assert math.prod(dataclasses.astuple(mesh)) == num_devices


@pytest.mark.parametrize("name", RUNS)
def test_a_docstring_gives_command_hardware_time_and_loss(name):
    text = inspect.getdoc(function_of(name))
    for head in ("Command:", "Hardware:", "Time:", "Expected loss:"):
        assert f"\n{head}" in text
    assert f"llama-jax train {name}" in text


def test_building_a_run_touches_no_device():
    """A job's processes must find each other first, and JAX refuses that after any computation."""
    code = """
from train.run_source import find_run, named_runs
import jax
for name in named_runs():
    find_run(name)
assert not jax._src.xla_bridge.backends_are_initialized()
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


@pytest.mark.parametrize(
    "shape, num_devices",
    [("V5P_16", 16), ("V5P_1024", 1024), ("V5P_4096", 4096), ("V5P_1024_LONG", 1024),
     ("V5P_512_LONG", 512), ("H100_64", 64), ("H100_512", 512), ("H100_8192", 8192)],
)  # fmt: skip
def test_a_mesh_has_its_machines_devices(shape, num_devices):
    assert math.prod(dataclasses.astuple(getattr(meshes, shape))) == num_devices


@pytest.mark.parametrize(
    "run, shape, num_devices",
    [(pretrain_8b, meshes.H100_64, 64), (pretrain_70b, meshes.H100_512, 512),
     (pretrain_405b, meshes.H100_8192, 8192)],
)  # fmt: skip
def test_the_pods_of_gpus_fit_too(run, shape, num_devices):
    run = run()
    evaluations = tuple(
        dataclasses.replace(held_out, batch_rows=1024) for held_out in run.evaluations
    )
    check_run(dataclasses.replace(run, mesh=shape, evaluations=evaluations), num_devices)


@pytest.mark.parametrize(
    "run, rows", [(sft_8b, 64), (reward_8b, 64), (dpo_8b, 64), (distill_8b, 64)]
)
def test_post_training_fits_64_gpus_with_the_options_of_its_docstring(run, rows):
    text, run = inspect.getdoc(run), run()
    assert "--stages.0.batch.0.micro-batches 1" in text
    assert run.stages[0].batch[0].rows == rows or f"--stages.0.batch.0.rows {rows}" in text
    stage = dataclasses.replace(run.stages[0], batch=(train.config.BatchStep(0, rows),))
    check_run(dataclasses.replace(run, mesh=meshes.H100_64, stages=(stage,)), 64)


def test_more_chips_need_no_other_option_than_their_number():
    """As the docstring of `pretrain_8b` says."""
    for num_chips in (32, 64, 128):
        check_run(dataclasses.replace(pretrain_8b(), mesh=MeshShape(fsdp=num_chips)), num_chips)


@pytest.mark.parametrize(
    "run, most", [(pretrain_8b, 1 << 20), (pretrain_405b, 16 << 20), (pretrain_405b_65m, 16 << 20)]
)
def test_a_micro_batch_does_not_grow_with_the_batch(run, most):
    """Tokens at once are what memory grows with."""
    for stage in run().stages:
        for step in stage.batch:
            tokens = step.rows * stage.row_length
            assert tokens // step.micro_batches == min(tokens, most)


def test_sizes_are_the_published_ones():
    """The counts of Meta's released weights."""
    assert num_parameters(pretrain_8b().model) == 8_030_261_248
    assert num_parameters(pretrain_70b().model) == 70_553_706_496
    assert num_parameters(pretrain_405b().model) == 405_853_388_800


@pytest.mark.parametrize(
    "run, peak", [(pretrain_8b, 3e-4), (pretrain_70b, 1.5e-4), (pretrain_405b, 8e-5)]
)
def test_learning_rates_of_pretraining_are_the_published_ones(run, peak):
    stage = run().stages[1]
    first, warm, half, last, after = rates(stage, [0, 8000, 604_000, 1_200_000, 1_300_000])
    assert first == pytest.approx(peak / 8000)
    assert warm == pytest.approx(peak)
    # Half way down the cosine; float32 has seven digits.
    assert half == pytest.approx((peak + peak / 100) / 2, rel=1e-5)
    assert last == after == pytest.approx(peak / 100)
    assert run().stages[0].learning_rate == stage.learning_rate


def test_the_batch_ramp_is_the_published_one():
    first, second = pretrain_405b().stages
    assert (first.row_length, second.row_length) == (4096, 8192)
    assert round(first.num_tokens, -6) == 252_000_000
    assert steps_of(first) == 60
    tokens = [step.rows * 4096 for step in first.batch] + [s.rows * 8192 for s in second.batch]
    assert tokens == [4 << 20, 8 << 20, 16 << 20]
    assert first.num_tokens + second.batch[1].after_tokens == 2_870_000_000_000
    assert first.num_tokens + second.num_tokens == 15_600_000_000_000
    # 60 + 342,101 + 758,767: the 1.2M steps of the cosine are not all used.
    assert steps_of(first) + steps_of(second) == 1_100_928


def test_the_mix_is_the_published_one():
    for stage in pretrain_405b().stages:
        shares = {source.name: source.weight for source in stage.mixture}
        assert shares == {
            "general": 0.5, "math_reasoning": 0.25, "code": 0.17, "multilingual": 0.08
        }  # fmt: skip


def test_the_variant_has_batches_of_65_million_tokens():
    first, second = pretrain_405b_65m().stages
    assert second.batch[-1].rows * second.row_length == 67_108_864
    assert first.learning_rate.decay_steps == pytest.approx(
        steps_of(first) + steps_of(second), rel=1e-3
    )


def test_long_context_has_six_gated_steps_of_800_billion_tokens():
    stages = long_context_405b().stages
    lengths = [4096, 8192, 16_384, 32_768, 65_536, 131_072]
    assert [stage.row_length for stage in stages] == lengths
    assert sum(stage.num_tokens for stage in stages) == 800_000_000_000
    for stage in stages:
        assert stage.gate.needle_accuracy == 1.0 and stage.gate.on_failure == "stop"
        assert sum(source.weight for source in stage.mixture) == pytest.approx(1)
        # Each its own mixture of lengths: documents of every length up to its own.
        assert {int(source.path.rpartition("_to_")[2]) for source in stage.mixture} == {
            length for length in lengths if length <= stage.row_length
        }
        assert stage.batch[0].rows * stage.row_length == 16 << 20


def test_long_context_ends_with_the_published_rope():
    run = long_context_405b()
    assert run.model.rope_scaling is None and run.model.rope_theta == 500_000
    factors = [stage.rope_scaling and stage.rope_scaling.factor for stage in run.stages]
    assert factors == [None, None, 2, 4, 8, 8]
    assert run.stages[-1].rope_scaling == LLAMA_31_405B.rope_scaling
    assert run.model.context_length == LLAMA_31_405B.context_length


def test_the_rate_of_long_context_goes_on_with_the_cosine():
    cosine = pretrain_405b().stages[1]
    stages = long_context_405b().stages
    before, after = 1_100_928, 1_100_928 + sum(map(steps_of, stages))
    wanted = rates(cosine, [before, after])
    # FIRST_RATE and LAST_RATE are written with three digits.
    assert [stages[0].learning_rate.start, stages[-1].learning_rate.end] == pytest.approx(
        wanted, rel=5e-3
    )
    for stage, following in zip(stages, stages[1:], strict=False):
        assert stage.learning_rate.end == following.learning_rate.start


def test_annealing_goes_to_zero_over_40_million_tokens():
    run = anneal_405b()
    (stage,) = run.stages
    assert stage.num_tokens == 40_000_000 and stage.row_length == 131_072
    num_steps = steps_of(stage)
    start, half, end = rates(stage, [7, 7 + num_steps / 2, 7 + num_steps], first_step=7)
    assert start == pytest.approx(long_context_405b().stages[-1].learning_rate.end)
    assert half == pytest.approx(start / 2) and end == 0
    assert 1 < stage.average_last <= num_steps
    shares = {source.name: source.weight for source in stage.mixture}
    assert sum(shares.values()) == pytest.approx(1) and shares["high_quality"] == 0.3
    assert run.model == LLAMA_31_405B


def test_the_whole_of_405b_is_one_schedule():
    run = llama_405b()
    assert len(run.stages) == 9
    parts = [pretrain_405b(), long_context_405b(), anneal_405b()]
    names = [stage.name for part in parts for stage in part.stages]
    assert [stage.name for stage in run.stages] == names
    assert run.stages[-1].rope_scaling == LLAMA_31_405B.rope_scaling


def test_tiny_cpu_is_small():
    run = tiny_cpu()
    assert num_parameters(run.model) == 855_168
    assert sum(stage.num_tokens for stage in run.stages) == 1_802_240
    assert sum(map(steps_of, run.stages)) == 540


@pytest.mark.parametrize(
    "cls",
    [
        cls
        for module in (train.config, train.schedules)
        for cls in vars(module).values()
        if dataclasses.is_dataclass(cls) and cls.__module__ == module.__name__
    ],
    ids=lambda cls: cls.__name__,
)
def test_every_field_of_a_config_is_documented(cls):
    """On a line of its own, or the help page says nothing of it."""
    for field in dataclasses.fields(cls):
        assert re.search(rf"^ *{field.name}: ", inspect.getdoc(cls), re.MULTILINE), field.name
