"""Our DeBERTa-v2 classifier against transformers', float32, random weights.

The tolerance of 1e-5 on logits of order 0.1 to 1 is that of the project.
"""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from transformers import DebertaV2Config, DebertaV2ForSequenceClassification
from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

from llama_jax.errors import InputError
from llama_jax.safety.deberta_v2 import (
    DebertaConfig,
    abstract_params,
    classify,
    load_classifier,
)
from llama_jax.safety.deberta_v2.distances import distance_rows

pytestmark = pytest.mark.usefixtures("quick_compilation")
TOLERANCE = 1e-5
# As mDeBERTa and Prompt Guard have it, but small.
V3 = {
    "vocab_size": 60,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "max_position_embeddings": 64,
    "relative_attention": True,
    "position_buckets": 8,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": "p2c|c2p",
    "max_relative_positions": -1,
    "position_biased_input": False,
    "type_vocab_size": 0,
    "id2label": {0: "BENIGN", 1: "INJECTION", 2: "JAILBREAK"},
}
VARIANTS = {
    "v3": {},
    "own projections": {"share_att_key": False},
    "content to position": {"pos_att_type": ["c2p"]},
    "position to content": {"pos_att_type": ["p2c"], "share_att_key": False},
    "content alone": {"pos_att_type": None},
    "absolute positions": {"position_biased_input": True, "type_vocab_size": 2},
    "every distance": {"position_buckets": -1, "max_relative_positions": 9},
    "plain distances": {"norm_rel_ebd": "none", "layer_norm_eps": 1e-3},
}


def reference(**changes):
    """transformers' model with weights that are not near zero, so that everything shows."""
    torch.manual_seed(0)
    model = DebertaV2ForSequenceClassification(DebertaV2Config(**{**V3, **changes})).eval()
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            tensor.normal_(std=0.2)
            if name.endswith("LayerNorm.weight"):
                tensor += 1
    return model


@pytest.fixture(scope="module", params=VARIANTS)
def pair(request, tmp_path_factory):
    model = reference(**VARIANTS[request.param])
    folder = tmp_path_factory.mktemp("deberta")
    model.save_pretrained(folder)
    return model, load_classifier(folder)


def logits_of(model, tokens, mask):
    with torch.no_grad():
        output = model(torch.tensor(tokens), attention_mask=torch.tensor(mask.astype(np.int64)))
    return output.logits.numpy()


@pytest.mark.parametrize("length", [17, 64])
def test_logits_are_those_of_transformers(pair, length):
    """Rows of all kinds of padding: none, at the end, all but the first token."""
    model, (config, params) = pair
    tokens = np.random.default_rng(length).integers(0, config.vocab_size, (4, length))
    lengths = np.array([length, max(1, length // 2), 1, max(1, length - 1)])
    mask = np.arange(length) < lengths[:, None]
    ours = classify(params, jnp.asarray(tokens), jnp.asarray(mask), config=config)
    expected = logits_of(model, tokens, mask)
    assert ours.dtype == jnp.float32
    np.testing.assert_allclose(ours, expected, atol=TOLERANCE, rtol=0)
    assert expected.std() > 0.01  # they say something


def test_padding_changes_nothing():
    config, params = BASE, random_params(BASE)
    tokens = np.random.default_rng(0).integers(0, config.vocab_size, (1, 9))
    alone = classify(params, jnp.asarray(tokens), jnp.ones((1, 9), bool), config=config)
    padded = np.pad(tokens, ((0, 0), (0, 7)), constant_values=5)
    mask = jnp.asarray(np.arange(16) < 9)[None]
    np.testing.assert_allclose(
        classify(params, jnp.asarray(padded), mask, config=config), alone, atol=TOLERANCE, rtol=0
    )


@pytest.mark.parametrize(
    "buckets, max_distance, length",
    [(256, 512, 512), (8, 64, 64), (32, 128, 300), (6, 20, 64), (128, 4096, 512)],
)
def test_distances_fall_into_the_same_buckets(buckets, max_distance, length):
    config = dataclasses.replace(BASE, num_buckets=buckets, max_distance=max_distance)
    places = torch.arange(length)
    expected = make_log_bucket_position(places[:, None] - places[None], buckets, max_distance)
    expected = torch.clamp(expected.long() + buckets, 0, 2 * buckets - 1)
    np.testing.assert_array_equal(distance_rows(length, config), expected.numpy())


BASE = DebertaConfig(
    vocab_size=60, num_layers=2, model_dim=24, num_heads=3, feed_forward_dim=40, context_length=64,
    norm_eps=1e-7, num_types=0, has_absolute_positions=False, max_distance=64, num_buckets=8,
    content_to_position=True, position_to_content=True, shares_projections=True,
    norms_distances=True, labels=("A", "B", "C"),
)  # fmt: skip


def random_params(config):
    random = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: random.normal(0, 0.5, leaf.shape).astype("f4"), abstract_params(config)
    )


def outcome(config, length=20):
    """Shapes of the parameters, and logits or why there are none."""
    params = random_params(config)
    tokens, mask = np.arange(length)[None] % 50, np.ones((1, length), bool)
    try:
        logits = classify(params, jnp.asarray(tokens), jnp.asarray(mask), config=config)
    except InputError as error:
        logits = str(error)
    return [leaf.shape for leaf in jax.tree.leaves(params)], logits


@pytest.fixture(scope="module")
def base_outcome():
    return outcome(BASE)


@pytest.mark.parametrize(
    "field, value",
    [
        ("vocab_size", 61),
        ("num_layers", 3),
        ("model_dim", 27),
        ("num_heads", 2),
        ("feed_forward_dim", 41),
        ("context_length", 19),
        ("norm_eps", 0.5),
        ("num_types", 1),
        ("has_absolute_positions", True),
        ("max_distance", 24),
        ("num_buckets", 12),
        ("content_to_position", False),
        ("position_to_content", False),
        ("shares_projections", False),
        ("norms_distances", False),
        ("labels", ("A", "B")),
    ],
)
def test_every_field_of_the_config_changes_the_outcome(field, value, base_outcome):
    """Other parameters, an error, or from parameters of the same shapes other logits."""
    shapes, logits = outcome(dataclasses.replace(BASE, **{field: value}))
    assert (
        shapes != base_outcome[0]
        or isinstance(logits, str)
        or np.abs(logits - base_outcome[1]).max() > 1e-4
    )


def test_all_fields_are_tried():
    (mark,) = test_every_field_of_the_config_changes_the_outcome.pytestmark
    tried = {case[0] for case in mark.args[1]}
    assert tried == {field.name for field in dataclasses.fields(DebertaConfig)}


def test_config_json_says_all_of_it(pair, tmp_path):
    """What transformers writes is read back as the numbers it was made with."""
    model, (config, _) = pair
    theirs = model.config
    assert config.model_dim == theirs.hidden_size and config.num_heads == theirs.num_attention_heads
    assert config.labels == ("BENIGN", "INJECTION", "JAILBREAK")
    assert config.norm_eps == theirs.layer_norm_eps
    assert json.loads(theirs.to_json_string(use_diff=False))["model_type"] == "deberta-v2"
