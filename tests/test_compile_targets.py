"""Devices that are not here."""

import pytest

from llama_jax.compile_targets import target_devices
from llama_jax.errors import InputError


def test_a_gpu_and_a_node_of_them():
    pytest.importorskip("jax_plugins.xla_cuda13")
    (device,) = target_devices("h200")
    assert device.device_kind == "NVIDIA H200"
    assert len(target_devices("h100:8")) == 8


def test_a_tpu_topology():
    pytest.importorskip("libtpu")
    assert len(target_devices("v5p:2x2x1")) == 4


@pytest.mark.parametrize("name", ["h100:", "h100:x", "h100:0", "h100:-1"])
def test_a_number_of_gpus_that_is_none(name):
    with pytest.raises(InputError, match="a number of GPUs"):
        target_devices(name)


@pytest.mark.parametrize("name", ["", "h300", "v9:2x2", "v5p:9"])
def test_an_unknown_name_says_what_names_are_like(name):
    pytest.importorskip("libtpu")
    with pytest.raises(InputError, match="v5p:2x2x4, h100"):
        target_devices(name)
