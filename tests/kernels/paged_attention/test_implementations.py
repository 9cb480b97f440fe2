"""Paged attention by name."""

import logging

import jax.numpy as jnp
import numpy as np
import pytest

from llama_jax.errors import InputError
from llama_jax.kernels import named_choice
from llama_jax.kernels.paged_attention import reference
from llama_jax.kernels.paged_attention.implementations import paged_attention_by_name
from llama_jax.kernels.select import inference_operators

from .paged_cases import random_rows

H100 = "NVIDIA H100 80GB HBM3"

pytestmark = pytest.mark.usefixtures("quick_compilation")


def rows(**case):
    return random_rows([5, 2], **(dict(num_heads=4, num_kv_heads=2) | case))[:4]


def test_one_name_is_strict_and_says_who_would():
    attend = paged_attention_by_name("mosaic_gpu", platform="cpu", device_kind="cpu")
    with pytest.raises(InputError, match="not on cpu.*These take it: reference, chunked"):
        attend(*rows(), scale=0.1)
    attend = paged_attention_by_name("ragged_tpu", platform="gpu", device_kind=H100)
    with pytest.raises(
        InputError, match="not on gpu.*These take it: reference, chunked, mosaic_gpu"
    ):
        attend(*rows(), scale=0.1)


def test_of_several_names_the_first_that_can_runs_and_is_logged_once(caplog):
    named_choice.report_choice.cache_clear()
    names = ("mosaic_gpu", "ragged_tpu", "reference")
    attend = paged_attention_by_name(names, platform="tpu", device_kind="TPU v5p")
    arguments = rows(page_dtype=jnp.int8)
    with caplog.at_level(logging.INFO, logger=named_choice.__name__):
        output = attend(*arguments, scale=0.1)
        attend(*arguments, scale=0.1)
    np.testing.assert_array_equal(output, reference.paged_attention(*arguments, scale=0.1))
    (record,) = caplog.records
    assert record.getMessage().startswith("paged attention: reference (tpu, bfloat16")
    assert "ragged_tpu: takes pages of the query's bfloat16" in record.getMessage()


def test_an_unknown_name_is_refused_at_once():
    with pytest.raises(InputError, match="'flash' is not one of reference, chunked, mosaic_gpu"):
        paged_attention_by_name("flash", platform="cpu", device_kind="cpu")


@pytest.mark.parametrize("kind", ["NVIDIA A100-SXM4-80GB", "NVIDIA B200"])
def test_the_hopper_kernel_is_for_hopper(kind):
    attend = paged_attention_by_name("mosaic_gpu", platform="gpu", device_kind=kind)
    with pytest.raises(InputError, match="runs on Hopper"):
        attend(*rows(), scale=0.1)


def test_decoding_and_prompts_run_over_pages_everywhere():
    for platform, kind in (("cpu", "cpu"), ("gpu", H100), ("tpu", "TPU v5p")):
        for operators in inference_operators(platform, kind):
            case = rows(num_queries=2, head_dim=64)
            output = operators.paged_attention(*case, scale=0.1)
            expected = reference.paged_attention(*case, scale=0.1)
            # bfloat16: probabilities and outputs are rounded once each.
            np.testing.assert_allclose(
                np.asarray(output, np.float32), np.asarray(expected, np.float32), atol=0.016
            )


def test_a_kernel_of_decoding_is_asked_for_by_name_and_leaves_prompts_alone():
    of_prompts, of_decoding = inference_operators("gpu", H100, paged_attention="mosaic_gpu")
    case = rows(page_size=16, head_dim=64)
    of_prompts.paged_attention(*case, scale=0.1)
    with pytest.raises(InputError, match="mosaic_gpu: takes pages of a multiple of 64"):
        of_decoding.paged_attention(*case, scale=0.1)
    with pytest.raises(InputError, match="'fast' is not one of"):
        inference_operators("cpu", "cpu", paged_attention="fast")
