"""Products with quantised weights by name: every implementation there is, and how one is chosen.

As for attention (`kernels/attention/implementations.py`): one name is strict, of several the first
that takes the case runs, and the log says once which. The kernels are for decoding, where a product
has few tokens and one device; prompts, and weights that are not quantised, are multiplied plainly
whatever the names. `xla` quantises the activations of an FP8 weight, the kernels do not: what they
compute is nearer to the unquantised product.
"""

import functools
import importlib
import logging
import math
from collections.abc import Callable

import jax

from llama_jax.errors import InputError
from llama_jax.kernels.matmul import flattened
from llama_jax.quantization.quantized_tensor import QuantizedTensor

XLA = "xla"
# Name -> module with `weight_only` and `refusal`, imported when named.
_KERNELS: dict[str, str] = {
    "weight_only_gpu": "llama_jax.kernels.matmul.weight_only_gpu",
    "weight_only_tpu": "llama_jax.kernels.matmul.weight_only_tpu",
}
IMPLEMENTATIONS = (XLA, *_KERNELS)
# More tokens than a kernel takes are a prompt.
MAX_TOKENS = 64

_log = logging.getLogger(__name__)


def weight_only_matmul(
    names: str | tuple[str, ...], *, platform: str, device_kind: str
) -> Callable[..., jax.Array]:
    """Matmul with the contract of `reference.matmul`, for one device and without gradients of
    quantised weights.

    Args:
      names: one of `IMPLEMENTATIONS`, or several in order of preference.
      platform: of the device that will run it: `cpu`, `gpu`, `tpu`.
      device_kind: as JAX names it (`device.device_kind`).

    Raises:
      InputError: an unknown name, here; a product of at most `MAX_TOKENS` tokens with a quantised
        weight that none of the names takes, when it is traced.
    """
    names = (names,) if isinstance(names, str) else tuple(names)
    for name in names:
        if name not in IMPLEMENTATIONS:
            raise InputError(f"matmul: must be of {', '.join(IMPLEMENTATIONS)}, not {name!r}")

    def matmul(
        x: jax.Array, weight: jax.Array | QuantizedTensor, *, contracted: int = 1
    ) -> jax.Array:
        leading = x.shape[: x.ndim - contracted]
        is_prompt = math.prod(leading) > MAX_TOKENS
        if is_prompt or not isinstance(weight, QuantizedTensor):
            return flattened.matmul(x, weight, contracted=contracted)
        outputs = weight.shape[: weight.ndim - contracted]
        matrix = weight.as_matrix(contracted)
        rows = x.reshape(-1, matrix.shape[1])
        name = _choose(names, rows, matrix, platform, device_kind)
        if name == XLA:
            return flattened.matmul(x, weight, contracted=contracted)
        return _module(name).weight_only(rows, matrix).reshape(*leading, *outputs)

    return matmul


def _choose(names, rows, matrix: QuantizedTensor, platform: str, device_kind: str) -> str:
    """The first of `names` that takes the product."""

    def refusal(name: str) -> str | None:
        if name == XLA:
            return None
        return _module(name).refusal(rows, matrix, platform=platform, device_kind=device_kind)

    reasons = []
    for name in names:
        reason = refusal(name)
        if reason is None:
            _report(name, matrix.format.value, matrix.shape, rows.shape[0], tuple(reasons))
            return name
        reasons.append(f"{name}: {reason}")
    takers = [name for name in IMPLEMENTATIONS if refusal(name) is None]
    raise InputError(f"matmul {'; '.join(reasons)}. These take it: {', '.join(takers)}")


@functools.cache
def _report(name: str, format: str, shape: tuple[int, ...], num_tokens: int, refused) -> None:
    _log.info(
        "matmul: %s (%s weight of %d outputs and %d inputs, %d tokens)%s",
        name,
        format,
        *shape,
        num_tokens,
        f"; refused: {'; '.join(refused)}" if refused else "",
    )


def _module(name: str):
    return importlib.import_module(_KERNELS[name])
