"""What is added to Meta's assets so that the target is complete."""

import base64
import json

import pytest

from llama_jax.chat.llama31_template import LLAMA_31_TEMPLATE
from llama_jax.checkpoints.carried_assets import carried_assets
from llama_jax.checkpoints.interface import Assets
from llama_jax.config import TINY
from llama_jax.errors import InputError
from llama_jax.tokenizers.llama31 import NUM_RANKS


@pytest.fixture(scope="module")
def meta_assets(tmp_path_factory):
    """A rank file of Llama 3's size: single bytes, pairs of bytes, and some triples."""
    tokens = [bytes([i]) for i in range(256)]
    tokens += [bytes([i, j]) for i in range(256) for j in range(256)]
    tokens += [bytes([i, j, 97]) for i in range(256) for j in range(256)]
    lines = [base64.b64encode(token) + b" %d" % i for i, token in enumerate(tokens[:NUM_RANKS])]
    path = tmp_path_factory.mktemp("meta") / "tokenizer.model"
    path.write_bytes(b"\n".join(lines) + b"\n")
    return Assets({"tokenizer.model": path})


@pytest.mark.parametrize("template", [None, "llama31"])
def test_huggingface_gets_a_tokenizer(meta_assets, template):
    carried = carried_assets(meta_assets, to="hf", config=TINY, chat_template=template)
    assert {"tokenizer.json", "tokenizer_config.json", "tokenizer.model"} <= carried.files.keys()
    tokenizer_config = json.loads(carried.files["tokenizer_config.json"])
    assert tokenizer_config.get("chat_template") == (LLAMA_31_TEMPLATE if template else None)
    assert tokenizer_config["eos_token"] == ("<|eot_id|>" if template else "<|end_of_text|>")
    assert carried.generation["eos_token_id"] == [128_001, 128_008, 128_009]
    assert carried.generation["do_sample"] is True
    assert (carried.generation["temperature"], carried.generation["top_p"]) == (0.6, 0.9)


@pytest.mark.parametrize("to", ["orbax", "meta"])
def test_others_get_only_generation_defaults(meta_assets, to):
    carried = carried_assets(meta_assets, to=to, config=TINY, chat_template=None)
    assert carried.files == meta_assets.files
    assert carried.generation["bos_token_id"] == 128_000


def test_what_is_there_is_kept(meta_assets):
    own = Assets(dict(meta_assets.files) | {"tokenizer.json": b"{}"}, {"eos_token_id": 5})
    assert carried_assets(own, to="hf", config=TINY, chat_template=None) == own
    with pytest.raises(InputError, match="leave it out"):
        carried_assets(own, to="hf", config=TINY, chat_template="llama31")


def test_other_tokenizer_models_are_left_alone(tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(b"\n\x0esentencepiece")
    assets = Assets({"tokenizer.model": tmp_path / "tokenizer.model"})
    assert carried_assets(assets, to="hf", config=TINY, chat_template=None) == assets
    small = Assets({"tokenizer.model": b"bytes"})
    assert carried_assets(small, to="orbax", config=TINY, chat_template=None) == small
    assert carried_assets(Assets(), to="hf", config=TINY, chat_template=None) == Assets()


def test_unknown_template_is_refused(meta_assets):
    with pytest.raises(InputError, match="'chatml' is not one of llama31"):
        carried_assets(meta_assets, to="hf", config=TINY, chat_template="chatml")
