"""An engine for accelerators that are not here: its programs compile, and never run.

Weights and pages are only shapes, lying as the serving rules say. What compiles is what runs there:
the loop that decodes all rows of a full engine, and the chunks of prompts. So the compiler tells
whether a model fits with its pages, and `decode_roofline` how fast memory would let it decode.
"""

import contextlib
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from infer.engine.executable_keys import ExecutableKey
from infer.engine.executables import Executables
from infer.engine.settings import EngineSettings
from infer.engine.weights import Pools, Weights
from llama_jax.accelerators import Accelerator
from llama_jax.checkpoints.quantized_source import abstract_quantized_params
from llama_jax.config import ModelConfig
from llama_jax.costs import forward_flops_per_token
from llama_jax.kernels.select import inference_operators
from llama_jax.model import init_page_pool
from llama_jax.quantization.recipes import Recipe
from sharding.placement import lying, page_shardings, quantized_shardings, unstacked_shardings
from sharding.pod_plan.memory import bytes_per_device
from sharding.sharded_operators import shard_paged_operators

# Choosing among matrix kernels means timing them, for which there is no device.
_GPU_OPTIONS = {"xla_gpu_autotune_level": 0}


def abstract_executables(
    config: ModelConfig,
    recipe: Recipe,
    mesh: Mesh,
    settings: EngineSettings,
    *,
    dtype: jnp.dtype = jnp.bfloat16,
) -> Executables:
    """The programs of an engine without a draft model, over weights and pages that are shapes.

    Args:
      recipe: formats of the weights; what has none is of `dtype`.
      mesh: of `compile_targets.target_devices` or real ones, see `serving_mesh_shape`.
      settings: pages are of their `cache_dtype`, `dtype` by default.
    """
    device = mesh.devices.flat[0]
    params = abstract_quantized_params(config, recipe, np.dtype(dtype))
    page_dtype = settings.cache_dtype or dtype
    pages = jax.eval_shape(
        lambda: init_page_pool(config, settings.num_pages, settings.page_size, page_dtype)
    )
    of_prompts, of_decoding = (
        shard_paged_operators(operators, mesh)
        for operators in inference_operators(device.platform, device.device_kind)
    )
    return Executables(
        config,
        Weights(lying(params, quantized_shardings(params, unstacked_shardings(config, mesh)))),
        Pools(lying(pages, page_shardings(config, mesh, page_dtype))),
        settings=settings,
        vocab_size=config.vocab_size,
        prefill_operators=of_prompts,
        decode_operators=of_decoding,
        mesh=mesh,
    )


def compile_for_mesh(
    executables: Executables, key: ExecutableKey, *, options: dict[str, str] | None = None
) -> jax.stages.Compiled:
    """One of the programs, compiled with `options`; `memory_analysis()` is per device."""
    device = executables.mesh.devices.flat[0]
    # JAX's TPU kernels look at the default device for what they are compiled for.
    is_tpu = device.platform == "tpu"
    with jax.default_device(device) if is_tpu else contextlib.nullcontext():
        lowered = executables.lower(key)
    own = _GPU_OPTIONS if device.platform == "gpu" else {}
    return lowered.compile(own | (options or {}))


@dataclass(frozen=True)
class DecodeRoofline:
    """The least that a step of decoding takes, by what it reads and by what it multiplies.

    Attributes:
      read_bytes: of one device: weights but for an embedding that is only looked up, and the pages
        of all rows.
      flops: of one device.
      seconds: the longer of the two at the published peaks. Nothing else is counted: no collective
        between devices, no start of a kernel.
      bound: `memory` or `compute`.
    """

    read_bytes: float
    flops: float
    seconds: float
    bound: str


def decode_roofline(
    executables: Executables, peaks: Accelerator, *, rows: int, num_tokens: int
) -> DecodeRoofline:
    """Of one step for `rows` rows of `num_tokens` tokens each; products count as bfloat16."""
    config, settings, params = (executables.config, executables.settings, executables.weights.model)
    read = bytes_per_device(params)
    if not config.tied_embeddings:
        read -= bytes_per_device(params["embedding"])
    of_a_page = bytes_per_device(executables.pools) / settings.num_pages
    read += rows * num_tokens / settings.page_size * of_a_page
    flops = rows * forward_flops_per_token(config, num_tokens) / executables.mesh.size
    reading, computing = read / peaks.memory_bandwidth, flops / peaks.bf16_flops
    bound = "memory" if reading >= computing else "compute"
    return DecodeRoofline(read, flops, max(reading, computing), bound)
