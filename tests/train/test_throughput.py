"""Rates against published figures, and no MFU without a known peak."""

from types import SimpleNamespace

import jax
import pytest

from llama_jax.accelerators import ACCELERATORS, accelerator
from llama_jax.config import LLAMA_31_8B, LLAMA_31_405B
from train.throughput import Throughput, missing_figures


def devices(kind, number):
    return [SimpleNamespace(device_kind=kind)] * number


def test_mfu_is_that_of_a_published_run():
    """MaxText, Llama 3.1 405B on 2 x 256 v6e: 149.5 tokens/s and chip at 8,192 tokens a row, 392.5
    TFLOP/s with all keys counted, of 918."""
    throughput = Throughput(LLAMA_31_405B, row_length=8192, devices=devices("TPU v6 lite", 512))
    values = throughput.values(149.5 * 512 * 10, 10.0)
    assert values["tokens_per_second"] == pytest.approx(149.5 * 512)
    assert values["tokens_per_second_per_device"] == pytest.approx(149.5)
    # Their figure is rounded to four digits, as is the rate.
    assert values["mfu_full"] == pytest.approx(392.5 / 918, rel=1e-3)


def test_the_conventions_differ_by_the_keys_of_attention_alone():
    throughput = Throughput(LLAMA_31_8B, row_length=8191, devices=devices("NVIDIA H200", 1))
    values = throughput.values(1000, 1.0)
    attention = 3 * 4 * 32 * 32 * 128 * (8191 - 4096) * 1000 / 989.4e12
    assert values["mfu_full"] - values["mfu_causal"] == pytest.approx(attention)


def test_an_unknown_device_has_no_mfu():
    throughput = Throughput(LLAMA_31_8B, row_length=8, devices=jax.devices())
    assert set(throughput.values(8, 1.0)) == {"tokens_per_second", "tokens_per_second_per_device"}
    said = "no MFU figures: the peak of 'cpu' is not known"
    assert missing_figures(jax.devices()[0]) == said
    assert missing_figures(*devices("NVIDIA H200", 1)) is None
    assert accelerator("NVIDIA H200 MIG 1g.18gb") is None


VERSIONS = {"v4": "v4", "v5 lite": "v5e", "v5": "v5p", "v6 lite": "v6e", "7x": "7x"}


@pytest.mark.parametrize("kind", VERSIONS)
def test_the_tpu_table_is_that_of_jax(kind):
    from jax.experimental.pallas import tpu

    version = tpu.ChipVersion(VERSIONS[kind])
    ours = ACCELERATORS["TPU7x" if kind == "7x" else f"TPU {kind}"]
    cores = 2 if version.supports_megacore else 1
    theirs = tpu.get_tpu_info_for_chip(version, cores)
    # JAX rounds to two or three digits.
    assert ours.bf16_flops == pytest.approx(theirs.bf16_ops_per_second * cores, rel=0.01)
    assert ours.memory_bytes == pytest.approx(theirs.hbm_capacity_bytes * cores, rel=0.01)
    if kind != "v5":  # where Google's page says 2,765 GB/s
        bandwidth = theirs.mem_bw_bytes_per_second * cores
        assert ours.memory_bandwidth == pytest.approx(bandwidth, rel=0.01)
