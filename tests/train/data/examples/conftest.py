"""Folders with small tokenizers: SmolLM2's kind with its ChatML, Llama 3.1's kind, and Meta's."""

import json
import shutil
from pathlib import Path

import pytest

CHATML = Path(__file__).parents[3] / "chat" / "templates" / "chatml.jinja"
LLAMA_SPECIAL_TOKENS = [
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eom_id|>",
    "<|eot_id|>",
    "<|python_tag|>",
]


@pytest.fixture(scope="session")
def chatml(tokenizer, tmp_path_factory):
    """A folder with a small tokenizer and SmolLM2's chat template."""
    folder = tmp_path_factory.mktemp("chatml")
    for file in tokenizer.iterdir():
        shutil.copy(file, folder)
    shutil.copy(CHATML, folder / "chat_template.jinja")
    return folder


@pytest.fixture(scope="session")
def llama(tokenizer, tmp_path_factory):
    """A folder with a small tokenizer that has the special tokens of Llama 3.1, no template."""
    folder = tmp_path_factory.mktemp("llama")
    fields = json.loads((tokenizer / "tokenizer.json").read_text())
    vocab = fields["model"]["vocab"]
    del fields["added_tokens"][1:], vocab["<|im_start|>"], vocab["<|im_end|>"]
    template = fields["added_tokens"].pop()
    del vocab[template["content"]]
    free = [0, 1, 2, *range(400, 410)]
    for id, text in zip(free, LLAMA_SPECIAL_TOKENS, strict=False):
        vocab[text] = id
        fields["added_tokens"].append({**template, "id": id, "content": text})
    (folder / "tokenizer.json").write_text(json.dumps(fields))
    (folder / "tokenizer_config.json").write_text("{}")
    return folder


@pytest.fixture(scope="session")
def meta():
    """Meta's own folder, with Llama 3.1's tokenizer."""
    return Path(pytest.importorskip("llama_models.llama3").__file__).parent


@pytest.fixture
def write_lines(tmp_path):
    """write_lines(name, lines) -> the path; a line is an object, or bytes as they are."""

    def write_lines(name, lines):
        path = tmp_path / name
        written = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
        path.write_bytes(b"".join(line + b"\n" for line in written))
        return path

    return write_lines
