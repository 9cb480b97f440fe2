"""Products with quantised weights by name: every implementation there is, and how one is chosen.

What a name means is in `kernels/named_choice.py`. The kernels are for decoding, where a product has
few tokens and one device; more tokens, which the log tells of, and weights that are not quantised
are multiplied plainly whatever the names. `xla` quantises the activations of an FP8 weight, the
kernels do not: what they compute is nearer to the unquantised product.
"""

import importlib
from collections.abc import Callable

import jax

from llama_jax.kernels.matmul import flattened
from llama_jax.kernels.matmul.few_tokens import MAX_TOKENS
from llama_jax.kernels.named_choice import choose_named, known_names, report_choice
from llama_jax.quantization.quantized_tensor import QuantizedTensor

XLA = "xla"
# Name -> module with `weight_only` and `refusal`, imported when named.
_KERNELS: dict[str, str] = {
    "weight_only_gpu": "llama_jax.kernels.matmul.weight_only_gpu",
    "weight_only_tpu": "llama_jax.kernels.matmul.weight_only_tpu",
}
IMPLEMENTATIONS = (XLA, *_KERNELS)


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
    names = known_names("matmul", names, IMPLEMENTATIONS)

    def matmul(
        x: jax.Array, weight: jax.Array | QuantizedTensor, *, contracted: int = 1
    ) -> jax.Array:
        if not isinstance(weight, QuantizedTensor):
            return flattened.matmul(x, weight, contracted=contracted)
        leading = x.shape[: x.ndim - contracted]
        outputs = weight.shape[: weight.ndim - contracted]
        matrix = weight.as_matrix(contracted)
        rows = x.reshape(-1, matrix.shape[1])
        name = _choose(names, rows, matrix, platform, device_kind)
        if name == XLA:
            return flattened.matmul(x, weight, contracted=contracted)
        return _module(name).weight_only(rows, matrix).reshape(*leading, *outputs)

    return matmul


def _choose(names, rows, matrix: QuantizedTensor, platform: str, device_kind: str) -> str:
    """The first of `names` that takes the product; `XLA` if its tokens are a prompt's."""
    num_tokens, (num_outputs, num_inputs) = rows.shape[0], matrix.shape
    described = (
        f"{matrix.format} weight of {num_outputs} outputs and {num_inputs} inputs, "
        f"{num_tokens} tokens"
    )
    if num_tokens > MAX_TOKENS:
        if names != (XLA,):
            described += f", which is more than the {MAX_TOKENS} of a kernel"
        report_choice("matmul", XLA, described, ())
        return XLA

    def refusal(name: str) -> str | None:
        if name == XLA:
            return None
        return _module(name).refusal(rows, matrix, platform=platform, device_kind=device_kind)

    return choose_named("matmul", names, IMPLEMENTATIONS, refusal, described)


def _module(name: str):
    return importlib.import_module(_KERNELS[name])
