"""What is refused in a classifier's folder, by name."""

import json
import re
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from transformers import DebertaV2Config, DebertaV2ForSequenceClassification

from llama_jax.errors import InputError
from llama_jax.safety.deberta_v2 import load_classifier

FIELDS = {
    "vocab_size": 20,
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 12,
    "max_position_embeddings": 16,
    "relative_attention": True,
    "position_buckets": 4,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": "p2c|c2p",
    "position_biased_input": False,
    "num_labels": 3,
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("deberta")
    DebertaV2ForSequenceClassification(DebertaV2Config(**FIELDS)).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "deberta")


def change_config(folder, **changes):
    path = folder / "config.json"
    fields = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({k: v for k, v in fields.items() if v != "absent"}))


def change_tensors(folder, **changes):
    path = folder / "model.safetensors"
    tensors = {**load_file(path), **{k.replace("__", "."): v for k, v in changes.items()}}
    save_file({k: v for k, v in tensors.items() if v is not None}, path)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"model_type": "deberta"}, "model_type 'deberta' is not supported here"),
        (
            {"architectures": ["DebertaV2ForMaskedLM"]},
            "only ['DebertaV2ForSequenceClassification']",
        ),
        ({"relative_attention": False}, "relative_attention = False is not supported"),
        ({"relative_attention": "absent"}, "relative_attention is absent, which means false"),
        ({"conv_kernel_size": 3}, "conv_kernel_size = 3 is not supported; only 0 is"),
        ({"hidden_act": "relu"}, "hidden_act = relu is not supported; only 'gelu' is"),
        ({"pooler_hidden_act": "tanh"}, "pooler_hidden_act = tanh is not supported"),
        ({"embedding_size": 4}, "embedding_size = 4 is not supported; only 8 is"),
        ({"pooler_hidden_size": 4}, "pooler_hidden_size = 4 is not supported; only 8 is"),
        ({"attention_head_size": 8}, "'attention_head_size' is not supported"),
        ({"some_new_key": 1}, "'some_new_key' is not supported (it may change the model)"),
        ({"pos_att_type": "p2p|c2p"}, "pos_att_type has 'p2p'"),
        ({"pos_att_type": 3}, "pos_att_type must be names"),
        ({"norm_rel_ebd": "batch_norm"}, "norm_rel_ebd has 'batch_norm'"),
        ({"problem_type": "regression"}, "problem_type = regression is not supported"),
        (
            {"hidden_size": 9, "pooler_hidden_size": 9},
            "model_dim 9 is not a multiple of num_heads 2",
        ),
        ({"hidden_size": "8"}, "hidden_size must be an integer"),
        ({"hidden_size": "absent"}, "hidden_size is missing"),
        ({"layer_norm_eps": 0}, "norm_eps must be positive"),
        ({"position_buckets": 64}, "num_buckets must be from 4 to twice"),
        ({"id2label": {"0": "A", "2": "B"}}, "id2label must name the classes 0, 1, ..."),
        ({"id2label": {"0": "A", "1": "A"}}, "two or more labels, all different"),
        ({"id2label": {"0": "A", "1": 5}}, "id2label must hold texts"),
        ({"num_hidden_layers": 2}, "tensor deberta.encoder.layer.1.attention"),
        ({"share_att_key": False}, "pos_key_proj.weight is missing"),
        ({"vocab_size": 21}, "has shape [20, 8], but config.json makes it [21, 8]"),
        ({"type_vocab_size": 2}, "token_type_embeddings.weight is missing"),
        ({"norm_rel_ebd": "none"}, "tensor 'deberta.encoder.LayerNorm"),
    ],
)
def test_a_config_that_is_not_covered_is_refused(folder, changes, message):
    change_config(folder, **changes)
    with pytest.raises(InputError, match=re.escape(message)) as raised:
        load_classifier(folder)
    assert str(folder) in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"lm_predictions__bias": np.zeros(3, np.float32)}, "'lm_predictions.bias' is not part of"),
        ({"classifier__bias": None}, "tensor classifier.bias is missing"),
        ({"classifier__bias": np.zeros(4, np.float32)}, "has shape [4], but config.json makes it"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(folder, changes, message):
    change_tensors(folder, **changes)
    with pytest.raises(InputError, match=re.escape(message)):
        load_classifier(folder)


def test_what_transformers_leaves_aside_is_left_aside(folder):
    """A table of absolute positions that the model does not use; 16-bit weights are widened."""
    expected = load_classifier(folder)[1]
    table = np.zeros((16, 8), np.float32)
    change_tensors(folder, deberta__embeddings__position_embeddings__weight=table)
    half = np.asarray(expected["head"], np.float16)
    change_tensors(folder, classifier__weight=half)
    params = load_classifier(folder)[1]
    np.testing.assert_array_equal(params["embedding"], expected["embedding"])
    np.testing.assert_array_equal(params["head"], half.astype(np.float32))
