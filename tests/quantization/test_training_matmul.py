"""The matrix product of training by name: what runs where, and what is refused."""

import pytest

from llama_jax.errors import InputError
from llama_jax.kernels.matmul import reference
from llama_jax.quantization import training_matmul as module
from llama_jax.quantization.training_matmul import training_matmul

H100, V5P, TPU7X = "NVIDIA H100 80GB HBM3", "TPU v5p", "TPU7x"


@pytest.mark.parametrize(
    "name, platform, kind, chosen",
    [
        ("fp8_tensorwise", "gpu", H100, "cublas"),
        ("fp8_rowwise", "gpu", H100, "xla"),
        ("fp8_rowwise_bf16_wgrad", "gpu", "NVIDIA B200", "xla"),
        ("fp8_tensorwise", "gpu", "NVIDIA A100-SXM4-80GB", "emulate"),
        ("fp8_tensorwise", "gpu", "NVIDIA GeForce RTX 3090", "emulate"),
        ("fp8_tensorwise", "gpu", "NVIDIA H800", "cublas"),
        ("fp8_tensorwise", "tpu", TPU7X, "xla"),
        ("fp8_rowwise", "tpu", V5P, "emulate"),
        ("int8", "tpu", V5P, "xla"),
        ("int8", "gpu", H100, "xla"),
        ("int8", "cpu", "cpu", "emulate"),
        ("fp8_tensorwise", "cpu", "cpu", "emulate"),
    ],
)
def test_what_runs_where(name, platform, kind, chosen, monkeypatch):
    monkeypatch.setattr(module, "_operator", lambda *arguments: arguments)
    got = training_matmul(name, platform=platform, device_kind=kind)
    assert got == (name, chosen)


def test_the_same_choice_is_the_same_object_which_jitted_functions_know_again():
    first, second = (
        training_matmul(name, platform="gpu", device_kind=H100) for name in ("int8", "int8")
    )
    assert first is second


def test_unquantised_is_the_reference_anywhere():
    for platform, kind in (("gpu", H100), ("tpu", V5P), ("cpu", "cpu")):
        got = training_matmul("bfloat16", platform=platform, device_kind=kind)
        assert got is reference.matmul


@pytest.mark.parametrize(
    "name, implementation, kind, num_devices, message",
    [
        ("fp8", "auto", H100, 1, "matmul: must be one of bfloat16, fp8_tensorwise"),
        ("int8", "triton", H100, 1, "matmul_implementation: must be one of auto, xla"),
        ("bfloat16", "xla", H100, 1, "matmul_implementation: xla is for 8-bit products"),
        ("fp8_rowwise", "cublas", H100, 1, "cuBLASLt is given one scale a tensor"),
        ("fp8_tensorwise", "mosaic_gpu", H100, 1, "the kernel multiplies FP8 rows"),
        ("int8", "mosaic_gpu", H100, 1, "the kernel multiplies FP8 rows"),
        ("fp8_rowwise", "mosaic_gpu", "NVIDIA B200", 1, "is for Hopper GPUs, not NVIDIA B200"),
        ("fp8_rowwise", "mosaic_gpu", H100, 8, "for one device, not 8; choose xla, or auto"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line(
    name, implementation, kind, num_devices, message
):
    with pytest.raises(InputError) as error:
        training_matmul(
            name,
            platform="gpu",
            device_kind=kind,
            num_devices=num_devices,
            implementation=implementation,
        )
    assert message in str(error.value) and "\n" not in str(error.value)


def test_our_kernel_is_taken_by_name_on_one_hopper_gpu():
    for kind in (H100, "NVIDIA H200"):
        training_matmul(
            "fp8_rowwise", platform="gpu", device_kind=kind, implementation="mosaic_gpu"
        )
