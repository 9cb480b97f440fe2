"""A reward model on disk is transformers' classifier with one label, and never a policy."""

import dataclasses
import json

import jax
import numpy as np
import pytest
import torch
from jax.sharding import PartitionSpec
from transformers import AutoModelForSequenceClassification

from infer.loaded_model import load_model
from llama_jax.checkpoints.compare import compare
from llama_jax.checkpoints.convert import convert
from llama_jax.checkpoints.load import load_checkpoint
from llama_jax.checkpoints.save import save_checkpoint
from llama_jax.config import TINY
from llama_jax.costs import num_parameters, weight_bytes
from llama_jax.errors import InputError
from llama_jax.model import forward, init_params, logical_axes, rewards

CONFIG = dataclasses.replace(TINY, reward_head=True)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Parameters, and their checkpoint in Hugging Face's form."""
    params = init_params(CONFIG, jax.random.key(0))
    folder = tmp_path_factory.mktemp("reward") / "hf"
    save_checkpoint(folder, CONFIG, params, format="hf")
    return params, folder


def test_it_has_a_reward_head_and_no_head():
    params = init_params(CONFIG, jax.random.key(0))
    assert params["reward_head"].shape == (TINY.model_dim,) and "head" not in params
    assert logical_axes(CONFIG)["reward_head"] == PartitionSpec("embed")
    size = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert num_parameters(CONFIG) == size and weight_bytes(CONFIG, np.dtype("float32")) == 4 * size
    # The rest is as in a policy of the same key.
    policy = init_params(TINY, jax.random.key(0))
    np.testing.assert_array_equal(params["embedding"], policy["embedding"])


def test_transformers_gives_the_same_scores(model):
    params, folder = model
    theirs = AutoModelForSequenceClassification.from_pretrained(folder)
    assert type(theirs).__name__ == "LlamaForSequenceClassification" and theirs.num_labels == 1
    tokens = np.random.default_rng(0).integers(5, TINY.vocab_size, (3, 20))
    hidden = forward(params, tokens, config=CONFIG)
    ours = rewards(params, hidden[:, -1], config=CONFIG)
    with torch.no_grad():
        theirs.config.pad_token_id = 0  # none of the tokens
        expected = theirs(torch.tensor(tokens)).logits[:, 0].numpy()
    # float32: measured 4e-8 where scores are 0.1.
    np.testing.assert_allclose(ours, expected, atol=5e-7)
    assert np.abs(expected).min() > 1e-3


def test_what_transformers_saves_is_read_back(model, tmp_path):
    params, folder = model
    AutoModelForSequenceClassification.from_pretrained(folder).save_pretrained(tmp_path / "theirs")
    config, loaded = load_checkpoint(tmp_path / "theirs")
    assert config == CONFIG
    jax.tree.map(np.testing.assert_array_equal, loaded, params)


def test_it_goes_to_our_format_and_back(model, tmp_path):
    params, folder = model
    convert(folder, tmp_path / "orbax", to="orbax", quiet=True)
    convert(tmp_path / "orbax", tmp_path / "hf", to="hf", quiet=True)
    assert json.loads((tmp_path / "hf/config.json").read_text())["id2label"] == {"0": "reward"}
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "hf" / name).read_bytes() == (folder / name).read_bytes()
    config, loaded = load_checkpoint(tmp_path / "orbax")
    assert config == CONFIG
    jax.tree.map(np.testing.assert_array_equal, loaded, params)


def test_other_formats_have_none(model, tmp_path):
    with pytest.raises(InputError, match="Meta's files have no reward head; use --to hf or orbax"):
        convert(model[1], tmp_path / "meta", to="meta", quiet=True)


def test_a_head_beside_it_is_refused(model, tmp_path):
    """An untied head would be weights that nothing reads."""
    policy = tmp_path / "policy"
    save_checkpoint(policy, TINY, init_params(TINY, jax.random.key(0)), format="hf")
    fields = json.loads((policy / "config.json").read_text())
    fields |= {"architectures": ["LlamaForSequenceClassification"], "id2label": {"0": "x"}}
    (policy / "config.json").write_text(json.dumps(fields))
    with pytest.raises(InputError, match="tensor score.weight is missing"):
        load_checkpoint(policy)
    fields["architectures"] = ["LlamaForCausalLM"]
    (model[1] / "config.json").rename(tmp_path / "kept.json")
    try:
        (model[1] / "config.json").write_text(json.dumps(fields))
        with pytest.raises(InputError, match="tensor lm_head.weight is missing"):
            load_checkpoint(model[1])
    finally:
        (tmp_path / "kept.json").rename(model[1] / "config.json")


def test_it_is_no_policy(model):
    with pytest.raises(InputError, match="hf: is a reward model, which scores texts"):
        load_model(model[1])
    with pytest.raises(InputError, match="hf: is a reward model, which scores texts"):
        compare(model[1], model[1])
