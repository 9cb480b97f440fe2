"""`params.json`: what Meta published, there and back, and what the file cannot say."""

import dataclasses
import json
import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_jax.checkpoints.meta_params import (
    config_from_params,
    feed_forward_rule,
    feed_forward_width,
    params_from_config,
)
from llama_jax.config import (
    LLAMA_31_8B,
    LLAMA_31_70B,
    LLAMA_31_405B,
    LLAMA_32_1B,
    LLAMA_32_3B,
    TINY,
    DynamicNtkScaling,
    LinearScaling,
    NtkScaling,
)
from llama_jax.errors import InputError

FILE = Path("checkpoint/params.json")
# As published with Llama 3.1 8B.
PUBLISHED_8B = {
    "dim": 4096,
    "ffn_dim_multiplier": 1.3,
    "multiple_of": 1024,
    "n_heads": 32,
    "n_kv_heads": 8,
    "n_layers": 32,
    "norm_eps": 1e-05,
    "rope_theta": 500000.0,
    "use_scaled_rope": True,
    "vocab_size": 128256,
}


def read(fields, **changes):
    arguments = {"file": FILE, "vocab_rows": 128_256, "tied_embeddings": False}
    return config_from_params(fields, **arguments | changes)


def test_published_8b():
    assert read(PUBLISHED_8B) == LLAMA_31_8B
    assert params_from_config(LLAMA_31_8B, stored_kv_heads=8) == PUBLISHED_8B


@pytest.mark.parametrize(
    "config",
    [LLAMA_31_70B, LLAMA_31_405B, LLAMA_32_1B, LLAMA_32_3B, TINY],
    ids=lambda c: c.model_dim,
)
def test_there_and_back(config):
    fields = json.loads(json.dumps(params_from_config(config, stored_kv_heads=config.num_kv_heads)))
    assert read(fields, vocab_rows=None, tied_embeddings=config.tied_embeddings) == config


@pytest.mark.parametrize("model", ["Llama3.1-8B", "Llama3.1-70B", "Llama3.2-1B", "Llama3.2-3B"])
def test_widths_of_metas_own_list(model):
    sku_list = pytest.importorskip("llama_models.sku_list")
    expected = sku_list.resolve_model(model).arch_args
    config = read(expected)
    fields = params_from_config(config, stored_kv_heads=8)
    for key in expected:
        assert fields[key] == expected[key], key


def test_metas_arguments_accept_what_we_write():
    """Unknown keys (`rope_scaling_factor`, `context_length`) must not stop Meta's code."""
    args = pytest.importorskip("llama_models.llama3.args")
    config = dataclasses.replace(LLAMA_32_1B, context_length=4096)
    fields = params_from_config(config, stored_kv_heads=8)
    assert args.ModelArgs(max_seq_len=8, max_batch_size=1, **fields).dim == 2048


@given(model_dim=st.integers(1, 20_000), width=st.integers(1, 100_000))
def test_every_width_has_a_rule(model_dim, width):
    multiple_of, multiplier = feed_forward_rule(model_dim, width)
    assert feed_forward_width(model_dim, multiple_of, multiplier) == width


def test_absent_keys_get_the_defaults_of_meta():
    config = read({"dim": 64, "n_layers": 2, "n_heads": 4, "rope_theta": 1e4}, vocab_rows=300)
    assert (config.num_kv_heads, config.vocab_size, config.norm_eps) == (4, 300, 1e-5)
    assert (config.feed_forward_dim, config.rope_scaling, config.context_length) == (
        256,
        None,
        8192,
    )


def test_vocabulary_of_minus_one_is_that_of_the_tensors():
    assert read(PUBLISHED_8B | {"vocab_size": -1}, vocab_rows=32_000).vocab_size == 32_000


def test_factor_32_is_kept_and_the_difference_to_meta_is_said(caplog):
    with caplog.at_level(logging.WARNING):
        fields = params_from_config(LLAMA_32_1B, stored_kv_heads=8)
    assert fields["rope_scaling_factor"] == 32.0
    assert "ignores it and computes with 8" in caplog.text
    assert read(fields).rope_scaling.factor == 32.0


def test_ntk_is_written_as_the_theta_it_amounts_to():
    config = dataclasses.replace(TINY, rope_scaling=NtkScaling(4.0), context_length=8192)
    fields = params_from_config(config, stored_kv_heads=2)
    assert fields["rope_theta"] == config.fold_ntk().rope_theta > config.rope_theta
    assert not fields["use_scaled_rope"]


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"rope_scaling": LinearScaling(4.0)}, "cannot express"),
        ({"rope_scaling": DynamicNtkScaling(2.0, 4096)}, "cannot express"),
        (
            {"rope_scaling": dataclasses.replace(TINY.rope_scaling, low_frequency_factor=2.0)},
            "cannot express",
        ),
        ({"head_dim": 32}, "no head dimension"),
    ],
    ids=str,
)
def test_what_the_file_cannot_say_is_refused(changes, message):
    with pytest.raises(InputError, match=message):
        params_from_config(dataclasses.replace(TINY, **changes), stored_kv_heads=2)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"dim": None}, "dim is missing"),
        ({"rope_theta": None}, "rope_theta is missing; add 500000.0"),
        ({"dim": "4096"}, "dim must be an integer"),
        ({"dim": 4095}, "not a multiple of n_heads"),
        ({"n_heads": 0}, "n_heads must be positive"),
        ({"n_layers": -1}, "num_layers must be a positive integer"),
        ({"n_kv_heads": 5}, "not a multiple of num_kv_heads"),
        ({"multiple_of": 0}, "multiple_of must be positive"),
        ({"ffn_dim_multiplier": float("nan")}, "finite"),
        ({"ffn_dim_multiplier": -1.0}, "feed_forward_dim must be a positive integer"),
        ({"use_scaled_rope": 1}, "true or false"),
        ({"use_scaled_rope": False, "rope_scaling_factor": 32.0}, "needs use_scaled_rope"),
        ({"rope_scaling_factor": 0}, "rope_scaling_factor: .* factor must be a positive number"),
        ({"quantization_args": {"group_size": 32}}, "quantized variants are not supported"),
        ({"lora_args": {"rank": 16}}, "quantized variants are not supported"),
        ({"vision_chunk_size": 560}, "vision models are not supported"),
        ({"moe_args": {}}, "Llama 4 is not supported"),
        ({"parallel_residual": True}, "'parallel_residual' is not supported"),
    ],
    ids=str,
)
def test_bad_fields_are_named_in_one_line(changes, message):
    with pytest.raises(InputError, match=message) as caught:
        read(PUBLISHED_8B | changes)
    assert str(caught.value).startswith(f"{FILE}: ") and "\n" not in str(caught.value)
    assert str(caught.value).count(str(FILE)) == 1
