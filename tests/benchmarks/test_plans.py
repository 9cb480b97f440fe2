"""What was recorded of plans agrees with formulas that know nothing of a compiler."""

import importlib.util
import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from llama_jax import costs
from llama_jax.config import PUBLISHED_MODELS

FOLDER = Path(__file__).parent
RECORDED = {path.stem: json.loads(path.read_text()) for path in FOLDER.glob("results/plans/*.json")}
TRAINING = [name for name, fields in RECORDED.items() if "program" in fields]
SERVING = [name for name in RECORDED if name not in TRAINING]
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)

_spec = importlib.util.spec_from_file_location("plans", FOLDER / "plans.py")
plans = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(plans)


def model_of(name: str):
    (size,) = (size for size in ("8b", "70b", "405b") if f"_{size}_" in f"{name}_")
    return PUBLISHED_MODELS[f"llama31_{size}"]


@pytest.mark.parametrize("name", RECORDED)
def test_each_was_made_by_the_command_that_stands_here(name):
    assert RECORDED[name]["command"] == f"llama-jax plan {plans.PLANS[name]}".replace(
        "2*v6e", "'2*v6e"
    ).replace("16x16 --rows 512 --mesh.data", "16x16' --rows 512 --mesh.data")


@pytest.mark.parametrize("name", TRAINING)
def test_a_training_step(name):
    fields, model = RECORDED[name], model_of(name)
    assert fields["fits"] and fields["memory"]["peak"] < fields["memory"]["capacity"]
    # Weights and two moments in float32, split over all devices: nothing is whole on one of them.
    copies = fields["mesh"]["data"]
    state = 12 * costs.num_parameters(model) * copies / fields["devices"]
    assert state < fields["memory"]["arguments"] < 1.02 * state + 2**20
    tokens = fields["rows"] * fields["row_length"]
    flops = fields["flops_per_device"]
    keys = (fields["row_length"] + 1) / 2
    causal = 3 * tokens * costs.forward_flops_per_token(model, keys) / fields["devices"]
    assert flops["model_causal"] == pytest.approx(causal)
    if fields["matmul"] != "bfloat16" or fields["remat"] != "full":
        return
    # With full remat: three products for each of the forward pass, all of a block but the last
    # again, and the head's again.
    head = model.vocab_size * model.model_dim
    blocks = costs.matmul_parameters(model) - head
    again = blocks - model.num_layers * model.feed_forward_dim * model.model_dim
    products = 2 * tokens * (3 * blocks + again + 4 * head) / fields["devices"]
    assert flops["executed_products"] == pytest.approx(products, rel=1e-3)
    seconds = fields["step_seconds"]
    assert seconds["quick"] < seconds["predicted"] < seconds["slow"]


@pytest.mark.parametrize("name", SERVING)
def test_an_engine(name):
    model = model_of(name)
    for program in ("decode", "prefill"):
        fields = RECORDED[name][program]
        recipe = None if fields["recipe"] == "bfloat16" else fields["recipe"]
        weights = costs.weight_bytes(model, BFLOAT16, recipe) / fields["devices"]
        groups = fields["memory"]["groups"]
        assert weights <= groups["weights"] < 1.01 * weights
        of_a_row = fields["max_length"] * costs.kv_bytes_per_token(model, BFLOAT16)
        assert groups["pages"] == fields["rows"] * of_a_row / fields["devices"]
        # Pure 8 bit is over 64 GB by itself: 65.7 GiB of weights.
        assert fields["fits"] is (name != "serve_70b_int8_64_gb")


@pytest.mark.parametrize("size", ["8b_v5p_2x2x4", "70b_v5p_4x4x4", "405b_v5p_8x8x8"])
def test_dpo_with_stored_log_probs_needs_little_more_memory_than_sft(size):
    names = [f"sft_{size}", f"dpo_{size}"]
    if not set(names) <= set(RECORDED):
        pytest.skip(f"{' and '.join(names)} are not both recorded")
    of_sft, of_dpo = (RECORDED[name] for name in names)
    assert of_sft["tokens_per_step"] == of_dpo["tokens_per_step"]
    assert of_dpo["memory"]["peak"] < 1.1 * of_sft["memory"]["peak"]
