"""config.json against transformers' LlamaConfig, and its frequencies against the formulas."""

import dataclasses
import json
import math

import ml_dtypes
import numpy as np
import pytest
import torch
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from llama_jax.checkpoints.huggingface_config import config_from_huggingface, config_to_huggingface
from llama_jax.config import (
    LLAMA_31_8B,
    LLAMA_32_1B,
    TINY,
    DynamicNtkScaling,
    LinearScaling,
    Llama3Scaling,
    NtkScaling,
)
from llama_jax.errors import InputError

BASE = dataclasses.replace(
    TINY,
    head_dim=32,
    rope_theta=12_345.0,
    norm_eps=3e-5,
    context_length=4096,
    rope_scaling=None,
)
CONFIGS = {
    "none": BASE,
    "linear": dataclasses.replace(BASE, rope_scaling=LinearScaling(4.0)),
    "ntk": dataclasses.replace(BASE, rope_scaling=NtkScaling(4.0)),
    "dynamic": dataclasses.replace(
        BASE, rope_scaling=DynamicNtkScaling(4.0, 512), context_length=2048
    ),
    "llama3 by 8": dataclasses.replace(BASE, rope_scaling=Llama3Scaling(8.0, 1.0, 4.0, 1024)),
    "llama3 by 32": dataclasses.replace(BASE, rope_scaling=Llama3Scaling(32.0, 1.5, 3.0, 2048)),
    "tied": dataclasses.replace(BASE, tied_embeddings=True),
    "8B": LLAMA_31_8B,
    "3.2 1B": LLAMA_32_1B,
}
# The file as transformers 4 sees it, as 5 writes it, and as we write it.
PLACES = {
    "ours": set(),
    "transformers 4": {"rope_parameters"},
    "transformers 5": {"rope_theta", "rope_scaling"},
}


def frequencies(config, num_tokens):
    """Independent numpy: the formulas of the docstrings in llama_jax/config.py."""
    d, theta, scaling = config.head_dim, config.rope_theta, config.rope_scaling
    if isinstance(scaling, NtkScaling):
        theta *= scaling.factor ** (d / (d - 2))
    if isinstance(scaling, DynamicNtkScaling):
        length = scaling.original_context_length
        stretch = scaling.factor * max(num_tokens, length) / length - (scaling.factor - 1)
        theta *= stretch ** (d / (d - 2))
    result = theta ** (-np.arange(0, d, 2) / d)
    if isinstance(scaling, LinearScaling):
        result /= scaling.factor
    if isinstance(scaling, Llama3Scaling):
        for i, frequency in enumerate(result):
            ratio = scaling.original_context_length * frequency / (2 * math.pi)
            low, high = scaling.low_frequency_factor, scaling.high_frequency_factor
            smooth = min(max((ratio - low) / (high - low), 0), 1)
            result[i] = frequency * (smooth + (1 - smooth) / scaling.factor)
    return result


@pytest.mark.parametrize("places", PLACES)
@pytest.mark.parametrize("name", CONFIGS)
def test_transformers_computes_our_frequencies(name, places):
    config = CONFIGS[name]
    fields = config_to_huggingface(config, np.dtype(np.float32))
    fields = {key: value for key, value in fields.items() if key not in PLACES[places]}
    rotary = LlamaRotaryEmbedding(LlamaConfig(**json.loads(json.dumps(fields))))
    for num_tokens in (16, 1500):
        rotary(torch.zeros(1), torch.arange(num_tokens)[None])
        # float32 in transformers; its powers are good to a few units in the last place.
        np.testing.assert_allclose(
            rotary.inv_freq.numpy(), frequencies(config, num_tokens), rtol=2e-6
        )
    assert rotary.attention_scaling == 1.0


@pytest.mark.parametrize("places", PLACES)
@pytest.mark.parametrize("name", CONFIGS)
def test_config_survives_the_way_there_and_back(name, places):
    config = CONFIGS[name]
    fields = json.loads(json.dumps(config_to_huggingface(config, np.dtype(np.float16))))
    fields = {key: value for key, value in fields.items() if key not in PLACES[places]}
    if name == "ntk":  # it has no name in Hugging Face: the same frequencies, as a larger theta
        theta = config.rope_theta * 4.0 ** (config.head_dim / (config.head_dim - 2))
        config = dataclasses.replace(config, rope_theta=theta, rope_scaling=None)
    assert config_from_huggingface(fields, file="config.json") == config


def test_transformers_reads_every_number():
    theirs = LlamaConfig(**config_to_huggingface(CONFIGS["tied"], np.dtype(ml_dtypes.bfloat16)))
    assert (theirs.vocab_size, theirs.num_hidden_layers, theirs.hidden_size) == (256, 2, 64)
    assert (theirs.num_attention_heads, theirs.num_key_value_heads, theirs.head_dim) == (4, 2, 32)
    assert (theirs.intermediate_size, theirs.max_position_embeddings) == (128, 4096)
    assert theirs.rms_norm_eps == 3e-5 and theirs.tie_word_embeddings is True
    assert theirs.dtype == torch.bfloat16 and theirs.rope_parameters["rope_theta"] == 12_345.0


@pytest.mark.parametrize(
    "rope",
    [
        None,
        {"rope_type": "linear", "factor": 2.0, "rope_theta": 777.0},
        {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 777.0},
        {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
            "rope_theta": 5e5,
        },
    ],
)
def test_reads_what_transformers_saves(tmp_path, rope):
    theirs = LlamaConfig(
        vocab_size=99,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        rope_parameters=rope,
        max_position_embeddings=128,
    )
    theirs.architectures = ["LlamaForCausalLM"]
    theirs.save_pretrained(tmp_path)
    config = config_from_huggingface(
        json.loads((tmp_path / "config.json").read_text()), file="config.json"
    )
    assert (config.vocab_size, config.num_kv_heads, config.head_dim) == (99, 4, 16)
    assert config.norm_eps == 1e-6 and not config.tied_embeddings
    rotary = LlamaRotaryEmbedding(theirs)
    np.testing.assert_allclose(rotary.inv_freq.numpy(), frequencies(config, 128), rtol=2e-6)


SIZES = {
    "model_type": "llama",
    "vocab_size": 32,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
}


def test_absent_keys_get_transformers_defaults():
    config, theirs = config_from_huggingface(SIZES, file="config.json"), LlamaConfig(**SIZES)
    assert config.rope_theta == theirs.rope_parameters["rope_theta"] == 10_000.0
    assert config.norm_eps == theirs.rms_norm_eps
    assert config.context_length == theirs.max_position_embeddings
    assert config.num_kv_heads == theirs.num_key_value_heads
    assert config.head_dim == theirs.head_dim
    assert config.tied_embeddings == theirs.tie_word_embeddings


def test_legacy_type_and_harmless_keys_are_read():
    fields = SIZES | {
        "rope_scaling": {"type": "linear", "factor": 2},
        "rope_theta": 500000,
        "_name_or_path": "somewhere",
        "transformers.js_config": {"dtype": "q4"},
        "rope_interleaved": False,
        "pretraining_tp": 1,
        "quantization_config": None,
    }
    config = config_from_huggingface(fields, file="config.json")
    assert config.rope_scaling == LinearScaling(2.0) and config.rope_theta == 500_000.0


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"model_type": "mistral"}, "model_type"),
        ({"model_type": None}, "model_type"),
        ({"architectures": ["LlamaForTokenClassification"]}, "architectures"),
        ({"architectures": ["LlamaForSequenceClassification"]}, "has one label"),
        ({"architectures": ["LlamaForSequenceClassification"], "id2label": 1}, "has one label"),
        ({"attention_bias": True}, "attention_bias"),
        ({"mlp_bias": True}, "mlp_bias"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"attention_dropout": 0.1}, "attention_dropout"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ({"quantization_config": {"quant_method": "fbgemm_fp8"}}, "quantization_config"),
        ({"sliding_window": 4096}, "sliding_window"),
        ({"new\nkey": 1}, "new"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "yarn"),
        ({"rope_scaling": {"type": "longrope"}}, "longrope"),
        ({"rope_scaling": {"type": ["linear"], "factor": 2.0}}, "rope_type"),
        ({"rope_scaling": {"type": "linear", "rope_type": "dynamic", "factor": 2.0}}, "disagree"),
        ({"rope_scaling": {"type": "linear"}}, "factor"),
        ({"rope_scaling": {"type": "linear", "factor": 0}}, "factor"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0, "beta_fast": 1}}, "beta_fast"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "low_freq_factor"),
        ({"rope_scaling": "linear"}, "rope_scaling"),
        ({"rope_parameters": {"full_attention": {"rope_type": "default"}}}, "full_attention"),
        ({"rope_parameters": {"partial_rotary_factor": 0.25}}, "partial_rotary_factor"),
        ({"rope_theta": 1e4, "rope_parameters": {"rope_theta": 5e5}}, "disagree"),
        (
            {
                "rope_scaling": {"type": "linear", "factor": 2.0},
                "rope_parameters": {"rope_type": "linear", "factor": 4.0},
            },
            "disagree",
        ),
        (
            {
                "rope_scaling": {
                    "type": "dynamic",
                    "factor": 2.0,
                    "original_max_position_embeddings": 64,
                }
            },
            "original_max_position_embeddings",
        ),
        ({"rope_scaling": {"type": "dynamic", "factor": 1e300}}, "factor"),
        ({"hidden_size": "64"}, "hidden_size"),
        ({"hidden_size": True}, "hidden_size"),
        ({"hidden_size": None}, "hidden_size"),
        ({"hidden_size": 10**100}, "hidden_size"),
        ({"hidden_size": 66}, "num_attention_heads"),
        ({"num_attention_heads": 0}, "num_attention_heads"),
        ({"num_key_value_heads": 3}, "num_kv_heads"),
        ({"num_hidden_layers": -1}, "num_layers"),
        ({"rms_norm_eps": math.nan}, "rms_norm_eps"),
        ({"rms_norm_eps": math.inf}, "rms_norm_eps"),
        ({"rope_theta": 10**400}, "rope_theta"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings"),
    ],
)
def test_what_is_not_implemented_is_refused_by_name(change, named):
    with pytest.raises(InputError, match=named) as caught:
        config_from_huggingface(SIZES | change, file="some/config.json")
    assert str(caught.value).startswith("some/config.json") and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        {"rope_scaling": DynamicNtkScaling(2.0, 4096)},
        {"model_dim": 66},
    ],
)
def test_what_the_format_cannot_say_is_refused(change):
    with pytest.raises(InputError, match="model config"):
        config_to_huggingface(dataclasses.replace(BASE, **change), np.dtype(np.float32))
