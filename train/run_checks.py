"""What can be known to be wrong with the numbers of a run before a device is touched.

A pod job that fails after an hour of compiling, or after a week at the end of its first stage, is
worth a page of checks. Each message names the field as the command line does, but for brackets:
`stages[2].batch[0].rows` is `--stages.2.batch.0.rows`.
"""

import jax.numpy as jnp

from llama_jax.config import ModelConfig
from llama_jax.kernels.select import check_attention_names
from llama_jax.model import REMAT_POLICIES
from llama_jax.quantization.training_matmul import UNQUANTIZED, check_matmul
from sharding.mesh import MeshShape
from train.config import RunConfig, StageConfig
from train.data.batch_schedule import BatchSchedule
from train.field_checks import at_least, divides, positive, require
from train.loss_checks import check_loss, check_own_loss
from train.schedules import WarmupCosine


def check_run(run: RunConfig, num_devices: int) -> MeshShape:
    """The mesh of `run` on `num_devices` devices. No file is looked at; see `data_checks.py`.

    Raises `InputError`, one line that names the field to change.
    """
    mesh = run.mesh.resolve(num_devices)
    _check_mesh(run, mesh)
    _check_division(run.model, mesh, "model")
    _check_names(run)
    require(bool(run.stages), "stages", "must have at least one")
    names = [stage.name for stage in run.stages]
    for index, stage in enumerate(run.stages):
        place = f"stages[{index}]"
        require(bool(stage.name), f"{place}.name", "must not be empty")
        require(names.index(stage.name) == index, f"{place}.name", f"{stage.name} is there twice")
        _check_stage(run, stage, mesh, place)
    _check_evaluations(run, mesh)
    if run.lora is not None:
        _check_lora(run)
    _check_numbers(run)
    return mesh


def check_kernels(run: RunConfig) -> None:
    """Raises `InputError` for names of attention and of products that no device could follow."""
    check_attention_names(run.attention)
    check_matmul(run.matmul, run.matmul_implementation)
    require(
        run.matmul == UNQUANTIZED or run.model.num_layers > 2,
        "matmul",
        f"{run.matmul} would quantise nothing: of {run.model.num_layers} layers the first and the "
        "last are left as they are",
    )


def _check_mesh(run: RunConfig, mesh: MeshShape) -> None:
    for axis in ("stage", "context"):
        size = getattr(mesh, axis)
        require(size == 1, f"mesh.{axis}", f"must be 1, not {size}: not supported in training yet")


def _check_division(model: ModelConfig, mesh: MeshShape, place: str) -> None:
    for name in ("num_heads", "num_kv_heads", "feed_forward_dim", "vocab_size"):
        divides(mesh.tensor, getattr(model, name), "mesh.tensor", f"{place}.{name}")
    divides(mesh.fsdp, model.model_dim, "mesh.fsdp", f"{place}.model_dim")


def _check_names(run: RunConfig) -> None:
    remat = ", ".join(REMAT_POLICIES)
    require(run.remat in REMAT_POLICIES, "remat", f"must be one of {remat}, not {run.remat!r}")
    check_kernels(run)
    fields = {
        "compute_dtype": run.compute_dtype,
        "param_dtype": run.param_dtype,
        "optimizer.moment_dtype": run.optimizer.moment_dtype,
    }
    for field, name in fields.items():
        known = ("float32", "bfloat16")
        require(name in known, field, f"must be one of {', '.join(known)}, not {name!r}")
    require(
        jnp.finfo(run.param_dtype).bits >= jnp.finfo(run.compute_dtype).bits,
        "param_dtype",
        f"{run.param_dtype} is less precise than compute_dtype {run.compute_dtype}",
    )


def _check_stage(run: RunConfig, stage: StageConfig, mesh: MeshShape, place: str) -> None:
    model = run.model
    for field in ("num_tokens", "row_length"):
        at_least(getattr(stage, field), 1, f"{place}.{field}")
    require(
        stage.row_length <= model.context_length,
        f"{place}.row_length",
        f"{stage.row_length} is over model.context_length {model.context_length}",
    )
    divides(mesh.context * mesh.tensor, stage.row_length, "mesh.tensor", f"{place}.row_length")
    at_least(stage.average_last, 0, f"{place}.average_last")
    if stage.rope_theta is not None:
        positive(stage.rope_theta, f"{place}.rope_theta")

    require(bool(stage.mixture), f"{place}.mixture", "must have at least one source")
    sources = [source.name for source in stage.mixture]
    for index, source in enumerate(stage.mixture):
        where = f"{place}.mixture[{index}]"
        require(sources.index(source.name) == index, f"{where}.name", "is there twice")
        positive(source.weight, f"{where}.weight")

    require(bool(stage.batch), f"{place}.batch", "must have at least one step")
    starts = [step.after_tokens for step in stage.batch]
    require(starts[0] == 0, f"{place}.batch[0].after_tokens", f"must be 0, not {starts[0]}")
    for index, step in enumerate(stage.batch):
        where = f"{place}.batch[{index}]"
        if index:
            ascends = step.after_tokens > starts[index - 1]
            require(ascends, f"{where}.after_tokens", f"must be over {starts[index - 1]}")
        at_least(step.rows, 1, f"{where}.rows")
        at_least(step.micro_batches, 1, f"{where}.micro_batches")
        parts = step.micro_batches * mesh.data * mesh.fsdp
        require(
            step.rows % parts == 0,
            f"{where}.rows",
            f"{step.rows} is not a multiple of {parts} = {step.micro_batches} micro-batches x "
            f"data {mesh.data} x fsdp {mesh.fsdp}",
        )
    _check_rate(stage, place)
    check_loss(run, stage, place)
    if stage.reference_model is not None:
        _check_division(stage.reference_model, mesh, f"{place}.reference_model")
    _check_gate(run, stage, place)
    num_steps = BatchSchedule(stage.batch, row_length=stage.row_length).steps_for(stage.num_tokens)
    require(
        stage.average_last <= num_steps,
        f"{place}.average_last",
        f"{stage.average_last} is over the {num_steps} steps of the stage",
    )


def _check_rate(stage: StageConfig, place: str) -> None:
    rate, place = stage.learning_rate, f"{place}.learning_rate"
    first, last = ("peak", "end") if isinstance(rate, WarmupCosine) else ("start", "end")
    positive(getattr(rate, first), f"{place}.{first}")
    at_least(getattr(rate, last), 0, f"{place}.{last}")
    if isinstance(rate, WarmupCosine):
        at_least(rate.warmup_steps, 0, f"{place}.warmup_steps")
        at_least(rate.decay_steps, rate.warmup_steps + 1, f"{place}.decay_steps")


def _check_lora(run: RunConfig) -> None:
    run.lora.check("lora")
    require(run.initial_weights is not None, "lora", "needs initial_weights, which it changes")
    require(not run.model.reward_head, "lora", "is for policies; a reward model is trained whole")
    require(run.matmul == UNQUANTIZED, "lora", f"needs matmul {UNQUANTIZED}, not {run.matmul}")
    averages = any(stage.average_last for stage in run.stages)
    require(not averages, "lora", "cannot stand with average_last: the mean of changes is none")


def _check_gate(run: RunConfig, stage: StageConfig, place: str) -> None:
    gate, place = stage.gate, f"{place}.gate"
    if gate is None:
        return
    require(
        not stage.average_last,
        place,
        "cannot stand with average_last: which checkpoints to keep would depend on its rounds",
    )
    _one_of_sets(run, gate.short_set, f"{place}.short_set")
    at_least(gate.max_loss_increase, 0, f"{place}.max_loss_increase")
    require(
        0 <= gate.needle_accuracy <= 1, f"{place}.needle_accuracy", "must be a share, from 0 to 1"
    )
    at_least(gate.num_needles, 1, f"{place}.num_needles")
    at_least(gate.max_extra_rounds, 0, f"{place}.max_extra_rounds")
    at_least(gate.extra_tokens, 1 if gate.max_extra_rounds else 0, f"{place}.extra_tokens")
    ends = ("stop", "continue")
    require(gate.on_failure in ends, f"{place}.on_failure", f"must be one of {', '.join(ends)}")


def _check_evaluations(run: RunConfig, mesh: MeshShape) -> None:
    names = [held_out.name for held_out in run.evaluations]
    for index, held_out in enumerate(run.evaluations):
        place = f"evaluations[{index}]"
        require(names.index(held_out.name) == index, f"{place}.name", "is there twice")
        at_least(held_out.num_rows, 1, f"{place}.num_rows")
        at_least(held_out.batch_rows, 1, f"{place}.batch_rows")
        divides(mesh.data * mesh.fsdp, held_out.batch_rows, "mesh.data * mesh.fsdp",
                 f"{place}.batch_rows")  # fmt: skip
        if held_out.loss is not None:
            check_own_loss(run, held_out.loss, f"{place}.loss")
    if run.checkpoint.best_set is not None:
        _one_of_sets(run, run.checkpoint.best_set, "checkpoint.best_set")


def _check_numbers(run: RunConfig) -> None:
    optimizer = run.optimizer
    for name in ("beta1", "beta2"):
        value = getattr(optimizer, name)
        require(0 <= value < 1, f"optimizer.{name}", f"must be from 0 to below 1, not {value}")
    for name in ("epsilon", "clip_norm"):
        positive(getattr(optimizer, name), f"optimizer.{name}")
    at_least(optimizer.weight_decay, 0, "optimizer.weight_decay")
    at_least(optimizer.max_skipped, 1, "optimizer.max_skipped")
    if optimizer.spike_factor is not None:
        require(optimizer.spike_factor > 1, "optimizer.spike_factor", "must be over 1")
    require(0 <= run.seed < 1 << 32, "seed", f"must be from 0 to 2**32 - 1, not {run.seed}")
    at_least(run.vocab_chunk, 1, "vocab_chunk")
    at_least(run.log_every_steps, 1, "log_every_steps")
    at_least(run.evaluate_every_steps, 0, "evaluate_every_steps")
    require(
        bool(run.evaluations) or not run.evaluate_every_steps,
        "evaluate_every_steps",
        f"{run.evaluate_every_steps}, and there are no evaluations; give 0 or a set",
    )
    at_least(run.checkpoint.every_steps, 1, "checkpoint.every_steps")
    at_least(run.checkpoint.keep, 1, "checkpoint.keep")
    if run.profile is not None:
        at_least(run.profile.first_step, 1, "profile.first_step")
        at_least(run.profile.num_steps, 1, "profile.num_steps")


def _one_of_sets(run: RunConfig, name: str, field: str) -> None:
    names = [held_out.name for held_out in run.evaluations]
    known = ", ".join(names) or "there are none"
    require(name in names, field, f"{name!r} is no evaluation set ({known})")
