"""A tiny random model on disk that has everything a command asks for."""

import dataclasses
import json
from pathlib import Path

import jax
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from llama_jax import init_params, save_checkpoint
from llama_jax.config import TINY

BOS, EOS, USER, ASSISTANT = "<bos>", "<eos>", "<user>", "<assistant>"
TEMPLATE = (
    "<bos>{% for m in messages %}{% if m.role == 'user' %}<user>{% elif m.role == 'system' %}"
    "<system>{% else %}<assistant>{% endif %}{{ m.content }}<eos>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def write_tiny_checkpoint(folder: Path, *, template: str | None, context_length: int = 256) -> Path:
    """A Hugging Face folder: byte-level vocabulary of 256 and five special tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({c: i for i, c in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([BOS, EOS, USER, ASSISTANT, "<system>"])
    config = dataclasses.replace(TINY, vocab_size=264, context_length=context_length)
    params = jax.tree.map(lambda x: 4 * x, init_params(config, jax.random.key(0)))
    save_checkpoint(folder, config, params, format="hf")
    tokenizer.save(str(folder / "tokenizer.json"))
    fields = {"bos_token": BOS, "eos_token": EOS}
    if template is not None:
        fields["chat_template"] = template
    (folder / "tokenizer_config.json").write_text(json.dumps(fields))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 257}))
    return folder


@pytest.fixture(scope="session")
def chat_checkpoint(tmp_path_factory):
    return write_tiny_checkpoint(tmp_path_factory.mktemp("models") / "chat", template=TEMPLATE)


@pytest.fixture(scope="session")
def base_checkpoint(tmp_path_factory):
    return write_tiny_checkpoint(tmp_path_factory.mktemp("models") / "base", template=None)
