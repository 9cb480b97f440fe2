"""The `fbgemm_fp8` layout of Hugging Face, in which Llama 3.1 405B FP8 was published.

`config.json` has a `quantization_config` that names the method, the bound of a token's largest
activation, and the products that are not quantised; beside the `weight` of every other product, in
float8_e4m3fn `[out, in]`, lies its `weight_scale` `[out, 1]`. Meta's recipe leaves the attention,
the head and the first and last feed-forward as they are; any choice of products is read.
"""

from collections.abc import Mapping
from typing import Any

from llama_jax.checkpoints.interface import TensorSpec
from llama_jax.checkpoints.parameter_names import LayerTensor, layer_tensors
from llama_jax.checkpoints.typed_fields import TypedFields
from llama_jax.config import ModelConfig
from llama_jax.errors import InputError
from llama_jax.quantization.number_formats import META_ROW_BOUND

CONFIG_KEY = "quantization_config"
_METHOD = "fbgemm_fp8"


def scale_name(weight_name: str) -> str:
    """Name in the files of the scales of the weight `weight_name`."""
    return f"{weight_name}_scale"


def read_spared(fields: Mapping[str, Any], *, file) -> tuple[str, ...] | None:
    """The modules that a parsed `config.json` says are not quantised; None if nothing is.

    Raises `InputError` for another method, and for another bound than the product here has.
    """
    quantization = fields.get(CONFIG_KEY)
    if quantization is None:
        return None
    place = f"{file}: {CONFIG_KEY}"
    if not isinstance(quantization, dict):
        raise InputError(f"{place} must be an object")
    method = quantization.get("quant_method")
    if method != _METHOD:
        raise InputError(
            f"{place}: quant_method {str(method)[:40]!r} is not supported; only {_METHOD} is, or "
            "weights that are not quantised"
        )
    known = {"quant_method", "activation_scale_ub", "modules_to_not_convert"}
    if unknown := sorted(quantization.keys() - known):
        raise InputError(f"{place}: {unknown[0][:80]!r} is not supported")
    bound = TypedFields(quantization, place).number("activation_scale_ub", META_ROW_BOUND)
    if bound != META_ROW_BOUND:
        raise InputError(
            f"{place}: activation_scale_ub {bound:g} is not supported; only {META_ROW_BOUND:g} is"
        )
    spared = quantization.get("modules_to_not_convert")
    # As transformers: without a list, the head alone.
    spared = ["lm_head"] if spared is None else spared
    if not isinstance(spared, list) or not all(isinstance(name, str) and name for name in spared):
        raise InputError(f"{place}: modules_to_not_convert must be a list of names")
    return tuple(spared)


def is_quantized(tensor: LayerTensor, spared: tuple[str, ...] | None) -> bool:
    """Whether a checkpoint that spares these modules has `tensor` in FP8."""
    is_product = len(tensor.shape) > 1 and tensor.name != "embedding"
    module = tensor.foreign_name("huggingface").removesuffix(".weight")
    # transformers takes a name for what begins with it or ends with it.
    return (
        is_product
        and spared is not None
        and not any(f"{module}.".startswith(f"{name}.") or module.endswith(name) for name in spared)
    )


def quantization_config(
    config: ModelConfig, tensors: Mapping[str, TensorSpec]
) -> dict[str, Any] | None:
    """The `quantization_config` for a checkpoint of `tensors`; None if none is quantised."""
    products = [t for t in layer_tensors(config) if is_quantized(t, ())]
    spared = [
        tensor.foreign_name("huggingface").removesuffix(".weight")
        for tensor in products
        if tensors[tensor.name].format is None
    ]
    if len(spared) == len(products):
        return None
    return {
        "quant_method": _METHOD,
        "activation_scale_ub": META_ROW_BOUND,
        "modules_to_not_convert": spared,
    }
