"""Logits and gradients against transformers: float32, tiny random models, near and far."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from llama_jax.checkpoints.parameter_names import layer_tensors
from llama_jax.config import (
    TINY,
    DynamicNtkScaling,
    LinearScaling,
    Llama3Scaling,
    NtkScaling,
)
from llama_jax.model import forward, init_params, logits
from llama_jax.model.rope import rope_frequencies

# Compiling is nearly all of the time of these tests.
pytestmark = pytest.mark.usefixtures("quick_compilation")

# We compute in float32, transformers in float64 but for its angles and norms, which stay float32:
# so the difference is our rounding and not theirs as well. It is measured at 3e-6 or less.
TOLERANCE = 2e-5


@functools.partial(jax.jit, static_argnames="config")
def our_logits(params, tokens, positions, config):
    return logits(
        params, forward(params, tokens, config=config, positions=positions), config=config
    )


LLAMA3 = TINY.rope_scaling
SCALINGS = {
    "none": None,
    "llama3-8": LLAMA3,
    "llama3-32": dataclasses.replace(LLAMA3, factor=32.0),
    "ntk": NtkScaling(factor=4.0),
    "linear": LinearScaling(factor=4.0),
}


def transformers_config(config):
    """The same architecture in transformers, with the names that transformers gives it."""
    rope = {"rope_type": "default", "rope_theta": config.rope_theta}
    match config.rope_scaling:
        case Llama3Scaling() as s:
            rope |= {
                "rope_type": "llama3",
                "factor": s.factor,
                "low_freq_factor": s.low_frequency_factor,
                "high_freq_factor": s.high_frequency_factor,
                "original_max_position_embeddings": s.original_context_length,
            }
        case NtkScaling(factor):  # transformers has no static NTK: give it the stretched base
            rope["rope_theta"] *= factor ** (config.head_dim / (config.head_dim - 2))
        case LinearScaling(factor):
            rope |= {"rope_type": "linear", "factor": factor}
        case DynamicNtkScaling(factor):
            rope |= {"rope_type": "dynamic", "factor": factor}
    return LlamaConfig(
        vocab_size=config.vocab_size,
        hidden_size=config.model_dim,
        intermediate_size=config.feed_forward_dim,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_heads,
        num_key_value_heads=config.num_kv_heads,
        head_dim=config.head_dim,
        max_position_embeddings=config.context_length,
        rms_norm_eps=config.norm_eps,
        tie_word_embeddings=config.tied_embeddings,
        rope_parameters=rope,
    )


def both_models(config):
    """Our params and transformers' copy of them: large enough that every weight and position
    matters, not so large that attention is an argmax, which no float32 reproduces."""
    params = init_params(config, jax.random.key(0))
    params = jax.tree.map(lambda leaf: leaf * 3 + 0.01, params)
    theirs = LlamaForCausalLM(transformers_config(config)).eval().double()
    state = theirs.state_dict()
    with torch.no_grad():
        for tensor in layer_tensors(config):
            weight = np.array(leaf_of(params, tensor)).reshape(tensor.foreign_shape)
            state[tensor.foreign_name("huggingface")].copy_(torch.from_numpy(weight))
    return params, theirs


def leaf_of(params, tensor):
    leaf = params
    for key in tensor.row.ours.replace("{}.", "").split("."):
        leaf = leaf[key]
    return leaf if tensor.layer is None else leaf[tensor.layer]


# RoPE sees differences of positions: a row holds near, distant and consecutive ones.
NEAR = np.arange(40)
FAR = np.concatenate([np.arange(13), 50_000 + np.arange(13), 99_990 + np.arange(14)])


def assert_same_logits(config, positions):
    params, theirs = both_models(config)
    tokens = np.random.default_rng(1).integers(0, config.vocab_size, (2, 40))
    positions = np.broadcast_to(positions, (2, 40))
    ours = np.asarray(our_logits(params, tokens, positions, config))
    with torch.inference_mode():
        expected = theirs(torch.tensor(tokens), position_ids=torch.tensor(positions)).logits.numpy()
    scale = np.abs(expected).max()
    assert np.abs(ours - expected).max() / scale < TOLERANCE


@pytest.mark.parametrize("positions", [NEAR, FAR], ids=["near", "far"])
@pytest.mark.parametrize("scaling", SCALINGS.values(), ids=SCALINGS)
def test_logits_for_each_rope_scaling(scaling, positions):
    assert_same_logits(dataclasses.replace(TINY, rope_scaling=scaling), positions)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("heads", [(4, 4), (3, 1), (8, 2), (8, 1)], ids=str)
def test_logits_for_each_gqa_ratio(heads, tied):
    config = dataclasses.replace(
        TINY,
        model_dim=48 if heads[0] == 3 else 64,  # transformers wants a multiple
        num_heads=heads[0],
        num_kv_heads=heads[1],
        tied_embeddings=tied,
    )
    assert_same_logits(config, FAR)


def test_frequencies_are_the_same_bits_as_torch():
    for theta in (1e4, 1e5, 5e5):
        for head_dim in (16, 64, 128):
            for scaling in SCALINGS.values():
                config = dataclasses.replace(
                    TINY, head_dim=head_dim, rope_theta=theta, rope_scaling=scaling
                )
                theirs = LlamaRotaryEmbedding(transformers_config(config)).inv_freq.numpy()
                # NTK's stretched base is no round number, and there PyTorch's float32 power is
                # up to two bits off the rounded power: published models have round bases.
                rtol = 2.5e-7 if isinstance(scaling, NtkScaling) else 0
                np.testing.assert_allclose(rope_frequencies(config), theirs, rtol=rtol)


def test_logits_for_dynamic_ntk_within_and_beyond_the_original_context():
    scaling = DynamicNtkScaling(factor=2.0, original_context_length=24)
    config = dataclasses.replace(TINY, rope_scaling=scaling, context_length=24)
    assert_same_logits(config, NEAR)  # 40 tokens, so the base has grown
    scaling = dataclasses.replace(scaling, original_context_length=64)
    assert_same_logits(dataclasses.replace(config, context_length=64, rope_scaling=scaling), NEAR)


@pytest.mark.parametrize("change", [
    {}, {"tied_embeddings": True}, {"rope_scaling": SCALINGS["llama3-32"]},
    {"rope_scaling": SCALINGS["ntk"]}, {"rope_scaling": SCALINGS["linear"]},
    {"num_heads": 3, "num_kv_heads": 1, "model_dim": 48}, {"num_kv_heads": 4},
    {"num_heads": 8, "num_kv_heads": 1}, {"num_heads": 8, "num_kv_heads": 2},
], ids=str)  # fmt: skip
def test_gradients_of_every_parameter(change):
    config = dataclasses.replace(TINY, **change)
    params, theirs = both_models(config)
    rng = np.random.default_rng(2)
    tokens = rng.integers(0, config.vocab_size, (2, 24))
    positions = np.broadcast_to(FAR[:24], (2, 24))
    weights = rng.standard_normal((2, 24, config.vocab_size), np.float32)

    def loss(params):
        return jnp.mean(weights * our_logits(params, tokens, positions, config))

    gradients = jax.grad(loss)(params)
    output = theirs(torch.tensor(tokens), position_ids=torch.tensor(positions)).logits
    (torch.tensor(weights) * output).mean().backward()
    expected = dict(theirs.named_parameters())
    for tensor in layer_tensors(config):
        theirs_gradient = expected[tensor.foreign_name("huggingface")].grad.numpy()
        ours = np.asarray(leaf_of(gradients, tensor)).reshape(tensor.foreign_shape)
        error = np.abs(ours - theirs_gradient).max() / np.abs(theirs_gradient).max()
        assert error < TOLERANCE, tensor.name
