"""What is known of an accelerator by its name."""

import pytest

from llama_jax.accelerators import is_hopper, is_hopper_or_later


@pytest.mark.parametrize(
    "kind, hopper, later",
    [
        ("NVIDIA H100 80GB HBM3", True, True),
        ("NVIDIA H200 NVL", True, True),
        ("NVIDIA GH200 480GB", True, True),
        ("NVIDIA H800", True, True),
        ("NVIDIA H20", True, True),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", True, True),
        ("NVIDIA B200", False, True),
        ("NVIDIA A100-SXM4-80GB", False, False),
        ("TPU v5p", False, False),
        ("cpu", False, False),
    ],
)
def test_generations_of_gpus(kind, hopper, later):
    assert (is_hopper(kind), is_hopper_or_later(kind)) == (hopper, later)
