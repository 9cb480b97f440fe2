"""A tiny random model on disk that has everything a command asks for."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from llama_jax import abstract_params, init_params, save_checkpoint
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


LLAMA3_SPECIAL = (
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
)


def llama3_tokenizer() -> Tokenizer:
    """A vocabulary of 256 bytes and of Llama 3's special tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({c: i for i, c in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(LLAMA3_SPECIAL))
    return tokenizer


def write_guard(folder: Path, config, params) -> Path:
    """A checkpoint with that tokenizer."""
    save_checkpoint(folder, config, params, format="hf")
    llama3_tokenizer().save(str(folder / "tokenizer.json"))
    fields = {"bos_token": LLAMA3_SPECIAL[0], "eos_token": LLAMA3_SPECIAL[1]}
    (folder / "tokenizer_config.json").write_text(json.dumps(fields))
    return folder


def write_guard_checkpoint(folder: Path) -> Path:
    """A Llama of one block that says `unsafe` and `S1` if its prompt holds a `~`, else `safe`.

    The vectors of tokens are the axes, so the head is a table: what follows what. Attention looks
    at all tokens alike, and adds how often it saw a `~` to an axis that no token has.
    """
    tokenizer = llama3_tokenizer()

    def token(text: str) -> int:
        (found,) = tokenizer.encode(text, add_special_tokens=False).ids
        return found

    config = dataclasses.replace(
        TINY, vocab_size=264, num_layers=1, model_dim=272, num_heads=2, num_kv_heads=1,
        head_dim=2, feed_forward_dim=8, context_length=2048,
    )  # fmt: skip
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), abstract_params(config))
    for norm in ("attention_norm", "feed_forward_norm"):
        params["blocks"][norm]["scale"] += 1
    params["final_norm"]["scale"] += 1
    params["embedding"][:, : config.vocab_size] = np.eye(config.vocab_size)
    seen = config.model_dim - 1
    params["blocks"]["attention"]["value"][0, 0, 0, token("~")] = 1
    params["blocks"]["attention"]["output"][0, seen, 0, 0] = 200  # of about a thousand tokens
    head, begin, end = params["head"], token("<|end_header_id|>"), token("<|eot_id|>")
    for before, after in ["un", "ns", "sa", "af", "fe", "\nS", "S1"]:
        head[token(after), token(before)] = 100
    head[end, [token("e"), token("1")]] = 100
    head[token("s"), begin], head[token("\n"), token("e")] = 0.5, 99.5
    head[token("u"), seen], head[token("\n"), seen] = 2, 1
    return write_guard(folder, config, params)


@pytest.fixture(scope="session")
def guard_checkpoint(tmp_path_factory):
    return write_guard_checkpoint(tmp_path_factory.mktemp("models") / "guard")


@pytest.fixture(scope="session")
def random_guard_checkpoint(tmp_path_factory):
    """A guard that answers nonsense."""
    folder = tmp_path_factory.mktemp("models") / "random-guard"
    config = dataclasses.replace(TINY, vocab_size=264, context_length=2048)
    return write_guard(folder, config, init_params(config, jax.random.key(1)))


@pytest.fixture(scope="session")
def chat_checkpoint(tmp_path_factory):
    return write_tiny_checkpoint(tmp_path_factory.mktemp("models") / "chat", template=TEMPLATE)


@pytest.fixture(scope="session")
def base_checkpoint(tmp_path_factory):
    return write_tiny_checkpoint(tmp_path_factory.mktemp("models") / "base", template=None)
