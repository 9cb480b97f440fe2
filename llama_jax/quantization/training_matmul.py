"""The matrix product of training by name, and what multiplies where.

    recipe           NVIDIA with FP8 units   TPU7x   other accelerators, CPUs
    fp8_tensorwise   cublas                  xla     emulate
    fp8_rowwise...   xla                     xla     emulate
    int8             xla                     xla     xla; emulate on a CPU

A device that `accelerators.py` neither lists nor knows as Hopper or Blackwell is taken to have no
FP8 units: an implementation can be named for it.
`emulate` has FP8's numbers and nothing of its speed: the log says so. `mosaic_gpu`, our kernel for
rows, is taken by name: no GPU has run it yet.
"""

import dataclasses
import functools
import logging
from collections.abc import Callable

import jax

from llama_jax.accelerators import accelerator, is_hopper, is_hopper_or_later
from llama_jax.errors import InputError
from llama_jax.kernels.matmul import reference
from llama_jax.quantization.fp8_training import quantized_matmul
from llama_jax.quantization.number_formats import INT8
from llama_jax.quantization.scaled_product import IMPLEMENTATIONS
from llama_jax.quantization.training_recipes import RECIPES, TrainingRecipe

UNQUANTIZED = "bfloat16"
# As a run asks for them.
MATMULS = (UNQUANTIZED, *RECIPES)
AUTO = "auto"
MATMUL_IMPLEMENTATIONS = (AUTO, *IMPLEMENTATIONS)

_log = logging.getLogger(__name__)


def training_matmul(
    name: str,
    *,
    platform: str,
    device_kind: str,
    num_devices: int = 1,
    implementation: str = AUTO,
) -> Callable[..., jax.Array]:
    """A matmul operator with gradients, the same object for the same arguments; the log says which.

    Args:
      name: one of `MATMULS`; `bfloat16` multiplies unquantised, in the dtype of activations.
      platform: of the devices: `cpu`, `gpu` or `tpu`.
      device_kind: as JAX names it (`device.device_kind`).
      num_devices: of the mesh; the partitioner cannot split what our own kernel does.
      implementation: `auto`, or one of `scaled_product.py`.

    Raises:
      InputError: an unknown name, or an implementation that cannot do it there.
    """
    check_matmul(name, implementation)
    if name == UNQUANTIZED:
        _log.info("matmul %s (unquantised, in the dtype of activations) on %s", name, device_kind)
        return reference.matmul
    recipe = RECIPES[name]
    chosen = implementation
    if implementation == AUTO:
        chosen = _automatic(recipe, platform, device_kind)
    elif refusal := _refusal(recipe, implementation, platform, device_kind, num_devices):
        raise InputError(f"matmul {name} by {implementation}: {refusal}")
    note = ""
    if chosen == "emulate":
        note = ": rounded as 8-bit numbers, multiplied in bfloat16, and nothing is gained in speed"
    _log.info("matmul %s by %s on %s%s", name, chosen, device_kind, note)
    return _operator(name, chosen)


@functools.cache
def _operator(name: str, implementation: str) -> Callable[..., jax.Array]:
    recipe = RECIPES[name]
    if implementation == "mosaic_gpu" and recipe.bf16_weight_gradient:
        # Where rows are all that is wanted of an operand, XLA reads it once more than need be.
        recipe = dataclasses.replace(recipe, fused_rows=True)
    return quantized_matmul(recipe, IMPLEMENTATIONS[implementation])


def check_matmul(name: str, implementation: str) -> None:
    """Raises `InputError` for an unknown name or implementation, or one that does not go with the
    other on any device."""
    if name not in MATMULS:
        raise InputError(f"matmul: must be one of {', '.join(MATMULS)}, not {name!r}")
    if implementation not in MATMUL_IMPLEMENTATIONS:
        known = ", ".join(MATMUL_IMPLEMENTATIONS)
        raise InputError(f"matmul_implementation: must be one of {known}, not {implementation!r}")
    if name == UNQUANTIZED and implementation != AUTO:
        raise InputError(
            f"matmul_implementation: {implementation} is for 8-bit products; give auto with matmul "
            f"{name}"
        )


def _automatic(recipe: TrainingRecipe, platform: str, device_kind: str) -> str:
    if platform == "cpu":
        return "emulate"
    if recipe.dtype != INT8:
        peaks = accelerator(device_kind)
        has_units = (
            is_hopper_or_later(device_kind) if peaks is None else peaks.fp8_flops is not None
        )
        if not has_units:
            return "emulate"
        if platform == "gpu" and not recipe.by_row:
            return "cublas"
    return "xla"


def _refusal(
    recipe: TrainingRecipe, implementation: str, platform: str, device_kind: str, num_devices: int
) -> str | None:
    """Why `implementation` cannot do it; None if it can."""
    if implementation == "cublas" and recipe.by_row:
        return "cuBLASLt is given one scale a tensor; choose fp8_tensorwise, or xla"
    if implementation == "mosaic_gpu":
        if not recipe.by_row or recipe.dtype == INT8:
            return "the kernel multiplies FP8 rows; choose fp8_rowwise, or auto"
        if platform != "gpu" or not is_hopper(device_kind):
            return f"the kernel is for Hopper GPUs, not {device_kind} ({platform}); choose auto"
        if num_devices > 1:
            return f"the kernel is for one device, not {num_devices}; choose xla, or auto"
    return None
