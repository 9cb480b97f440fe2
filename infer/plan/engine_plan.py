"""The plans of an engine: one step of decoding with all rows full, and one call of prefill."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np

from infer.engine.executable_keys import DecodeKey, ExecutableKey, PrefillKey
from infer.engine.executables import Executables
from infer.engine.settings import GREEDY_ONLY, EngineSettings
from infer.engine.sizing import PLATFORM_SIZES
from infer.plan.engine_programs import abstract_executables, compile_for_mesh, decode_roofline
from llama_jax.config import ModelConfig
from llama_jax.costs import forward_flops_per_token
from llama_jax.errors import InputError
from llama_jax.quantization.recipes import Recipe, recipe_named
from sharding.mesh import make_mesh
from sharding.pod_plan.memory import bytes_per_device
from sharding.pod_plan.plan import HiddenWork, Plan, Subject, make_plan
from sharding.serving_mesh import serving_mesh_shape
from sharding.topology import Topology

UNQUANTISED = "bfloat16"


@dataclasses.dataclass(frozen=True)
class Serving:
    """How a model is served.

    Attributes:
      recipe: formats of the weights; what has none is bfloat16.
      rows: answered at once.
      max_length: longest row in tokens; there are pages for all rows of it.
      cache_dtype: of pages; None is bfloat16.
    """

    recipe: str = UNQUANTISED
    rows: int = 16
    max_length: int = 8192
    cache_dtype: Any = None


def planned_executables(config: ModelConfig, serving: Serving, topology: Topology) -> Executables:
    """The engine's programs for all devices of `topology`, over shapes.

    Raises `InputError` for what the model or the machine does not allow.
    """
    platform = "tpu" if topology.is_tpu else "gpu"
    _, page_size, prefill_tokens, _ = PLATFORM_SIZES[platform]
    if serving.rows < 1:
        raise InputError(f"--rows must be at least 1, not {serving.rows}")
    if not page_size <= serving.max_length <= config.context_length:
        raise InputError(
            f"--max-length {serving.max_length}: must be from a page of {page_size} tokens to the "
            f"model's context of {config.context_length}"
        )
    max_length = -(-serving.max_length // page_size) * page_size
    settings = EngineSettings(
        row_buckets=(serving.rows,),
        max_length=max_length,
        page_size=page_size,
        num_pages=serving.rows * max_length // page_size,
        prefill_tokens=prefill_tokens,
        prefill_lengths=(prefill_tokens,),
        cache_dtype=serving.cache_dtype,
    )
    mesh = make_mesh(serving_mesh_shape(config, len(topology.devices)), topology.devices)
    is_plain = serving.recipe == UNQUANTISED
    recipe = Recipe(UNQUANTISED, {}) if is_plain else recipe_named(serving.recipe)
    return abstract_executables(config, recipe, mesh, settings)


def plan_decode(
    executables: Executables, serving: Serving, topology: Topology, *, name: str, command: str,
    options: dict[str, str] | None = None,
) -> Plan:  # fmt: skip
    """One token for each of the rows, all of them as long as they may get."""
    config, settings = executables.config, executables.settings
    rows, length = settings.num_rows, settings.max_length
    roofline = decode_roofline(executables, topology.peaks, rows=rows, num_tokens=length)
    attention = 4 * config.num_layers * config.num_heads * config.head_dim * rows * length
    flops = rows * forward_flops_per_token(config, length)
    subject = _subject(executables, serving, "decode", name=name, command=command)
    subject = dataclasses.replace(
        subject,
        tokens=rows,
        flops_causal=flops,
        flops_full=flops,
        hidden=HiddenWork(
            flops=attention / executables.mesh.size, bytes=bytes_per_device(executables.pools)
        ),
        least_seconds=roofline.seconds,
    )
    return _plan(executables, DecodeKey(rows, GREEDY_ONLY), subject, topology, options)


def plan_prefill(
    executables: Executables, serving: Serving, topology: Topology, *, name: str, command: str,
    options: dict[str, str] | None = None,
) -> Plan:  # fmt: skip
    """The first call's worth of one prompt."""
    config, settings = executables.config, executables.settings
    tokens = settings.prefill_tokens
    attention = 4 * config.num_layers * config.num_heads * config.head_dim * tokens
    # The head is multiplied with the last token alone.
    head = 2 * config.vocab_size * config.model_dim * (tokens - 1)
    subject = _subject(executables, serving, "prefill", name=name, command=command)
    subject = dataclasses.replace(
        subject,
        tokens=tokens,
        flops_causal=tokens * forward_flops_per_token(config, (tokens + 1) / 2) - head,
        flops_full=tokens * forward_flops_per_token(config, tokens) - head,
        hidden=HiddenWork(flops=attention * (tokens + 1) / 2 / executables.mesh.size),
    )
    return _plan(executables, PrefillKey(tokens, scored=False), subject, topology, options)


def _plan(
    executables: Executables,
    key: ExecutableKey,
    subject: Subject,
    topology: Topology,
    options: dict[str, str] | None,
) -> Plan:
    subject.settings["compiler_options"] = dict(options or {})
    return make_plan(
        subject,
        executables.mesh,
        topology,
        lambda: compile_for_mesh(executables, key, options=options),
    )


def _subject(
    executables: Executables, serving: Serving, program: str, *, name: str, command: str
) -> Subject:
    """Without what differs between the programs."""
    settings = executables.settings
    return Subject(
        name=name,
        program=program,
        command=command,
        settings={
            "recipe": serving.recipe,
            "rows": settings.num_rows,
            "max_length": settings.max_length,
            "page_size": settings.page_size,
            "pages": settings.num_pages,
            "cache_dtype": np.dtype(settings.cache_dtype or jnp.bfloat16).name,
        },
        tokens=0,
        flops_causal=0.0,
        flops_full=0.0,
        groups={
            "weights": bytes_per_device(executables.weights),
            "pages": bytes_per_device(executables.pools),
        },
    )
