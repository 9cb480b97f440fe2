"""Answers of quantised checkpoints: the commands take them like any other."""

import jax.numpy as jnp
import numpy as np
import pytest

from infer.generate import Generator
from infer.generate_command import generate
from infer.loaded_model import load_model
from llama_jax import forward, load_checkpoint, logits
from llama_jax.checkpoints.quantize import quantize_command
from llama_jax.errors import InputError

PROMPT = list(b"the cat sat on the mat")


def test_greedy_answers_are_those_of_the_uncached_network(chat_checkpoint, tmp_path):
    """float32, so that neither cache nor batch changes a choice; with tokenizer and stop ids."""
    quantize_command(str(chat_checkpoint), tmp_path / "q", recipe="int8_int4", quiet=True)
    loaded = load_model(tmp_path / "q")
    assert loaded.chat_format is not None and loaded.eos_ids == {257}
    generator = Generator(loaded.config, loaded.params, eos_ids=frozenset())
    (completion,) = generator.generate([PROMPT], max_new_tokens=4)

    config, params = load_checkpoint(tmp_path / "q", stacked=False)
    tokens = jnp.asarray([PROMPT + completion.tokens])
    scores = logits(params, forward(params, tokens, config=config), config=config)[0]
    expected = np.argmax(scores, -1)[len(PROMPT) - 1 : -1]
    assert completion.tokens == expected.tolist()


def test_generate_and_its_dtype(chat_checkpoint, tmp_path, capsys):
    """--dtype is of what is not quantised, and so of the computation."""
    quantize_command(str(chat_checkpoint), tmp_path / "q", recipe="int8", quiet=True)
    capsys.readouterr()
    generate(str(tmp_path / "q"), prompt=("hello",), max_new_tokens=2, dtype="bfloat16")
    assert "chat format" in capsys.readouterr().err
    params = load_model(tmp_path / "q", dtype="bfloat16").params
    assert params["embedding"].dtype == jnp.bfloat16
    assert params["blocks"][0]["attention"]["query"].values.dtype == jnp.int8


def test_a_kernel_that_cannot_run_here_is_refused_before_anything_is_answered(
    chat_checkpoint, tmp_path, capsys
):
    with pytest.raises(InputError, match="weight_only_gpu multiplies quantised.*has none"):
        generate(str(chat_checkpoint), prompt=("hello",), matmul="weight_only_gpu")
    quantize_command(str(chat_checkpoint), tmp_path / "q", recipe="int8", quiet=True)
    capsys.readouterr()
    with pytest.raises(InputError, match="for Hopper GPUs, not cpu. These take it: xla"):
        generate(str(tmp_path / "q"), prompt=("hello",), matmul="weight_only_gpu")
    with pytest.raises(InputError, match="at most 64 rows at once, not 65: give --batch-size 64"):
        generate(
            str(tmp_path / "q"), prompt=("hello",) * 70, matmul="weight_only_gpu", batch_size=65
        )
    assert not capsys.readouterr().out
