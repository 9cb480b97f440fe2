"""What `inspect` says of a checkpoint."""

import json

import numpy as np
import pytest

from llama_jax.checkpoints.inspect import inspect_command
from llama_jax.checkpoints.interface import Assets
from llama_jax.checkpoints.orbax import OrbaxSink
from llama_jax.config import TINY
from llama_jax.costs import num_parameters


@pytest.fixture
def checkpoint(tmp_path, random_tensors, specs_of):
    tensors = random_tensors(TINY)
    sink = OrbaxSink(tmp_path / "x", TINY, specs_of(tensors), Assets({}, {"eos_token_id": 7}))
    for name, tensor in tensors.items():
        sink.write(name, tensor)
    sink.finish()
    return tmp_path / "x"


def test_json_has_the_facts(checkpoint, capsys):
    inspect_command(checkpoint, tensors=True, json=True)
    facts = json.loads(capsys.readouterr().out)
    assert facts["format"] == "orbax"
    assert facts["config"] == TINY.to_dict()
    assert facts["parameters"] == num_parameters(TINY)
    assert facts["bytes"] == 4 * num_parameters(TINY)
    assert facts["generation"] == {"eos_token_id": 7}
    assert facts["tensors"]["blocks.0.attention.query"] == {
        "shape": [TINY.num_heads, TINY.head_dim, TINY.model_dim],
        "dtype": np.dtype(np.float32).name,
    }
    assert "no tokenizer there" in facts["tokenizer"]["error"]


def test_table_names_what_matters(checkpoint, capsys):
    inspect_command(checkpoint)
    shown = capsys.readouterr().out
    assert "orbax" in shown and f"{num_parameters(TINY):,}" in shown
    assert "blocks.0" not in shown
    inspect_command(checkpoint, tensors=True)
    assert "blocks.0.attention.query" in capsys.readouterr().out
