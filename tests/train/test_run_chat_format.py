"""What a run's dialogs were written in is what its weights are talked to in."""

import dataclasses
import json
import shutil

import pytest

from llama_jax.chat import Message
from llama_jax.errors import InputError
from llama_jax.json_file import read_json
from llama_jax.tokenizers import load_tokenizer
from train.config import Source
from train.data.examples.example_settings import ExampleSettings
from train.data.examples.prepare_examples import prepare_examples
from train.run_chat_format import run_chat_format
from train.run_tokenizer import copy_tokenizer

from .chat_runs import ROW_LENGTH, sft, write_tokenizer

DIALOG = [Message("user", "hi"), Message("assistant", "ho")]


def prepare(folder, name, tokenizer, chat_format):
    lines = folder / "lines.jsonl"
    messages = [{"role": one.role, "content": one.content} for one in DIALOG]
    lines.write_text(json.dumps({"messages": messages}) + "\n")
    settings = ExampleSettings(
        kind="dialogs",
        tokenizer=str(tokenizer),
        chat_format=chat_format,
        today=None,
        row_length=ROW_LENGTH,
    )
    prepare_examples([str(lines)], settings, output=folder / name, workers=1)
    return str(folder / name)


def run_of(folder, tokenizer, *paths):
    run = sft(folder)
    mixture = tuple(Source(f"{i}", path, 1.0) for i, path in enumerate(paths))
    stage = dataclasses.replace(run.stages[0], mixture=mixture)
    return dataclasses.replace(run, tokenizer=str(tokenizer), stages=(stage,), evaluations=())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Data of ChatML and of another template, and tokenizers with both and with none."""
    folder = tmp_path_factory.mktemp("formats")
    write_tokenizer(folder / "chatml")
    shutil.copytree(folder / "chatml", folder / "loud")
    template = folder / "loud" / "chat_template.jinja"
    template.write_text(template.read_text().replace("im_start|>", "im_start|>!"))
    shutil.copytree(folder / "chatml", folder / "silent")
    (folder / "silent" / "chat_template.jinja").unlink()
    for name in ("chatml", "loud"):
        prepare(folder, f"{name}_rows", folder / name, "template")
    return folder


def test_the_tokenizer_s_own_template_is_found_and_its_files_stay(folder, tmp_path):
    run = run_of(folder, folder / "chatml", str(folder / "chatml_rows"))
    copy_tokenizer(tmp_path, run.tokenizer, run_chat_format(run))
    copied = {path.name: path.read_bytes() for path in (tmp_path / "tokenizer").iterdir()}
    assert copied == {path.name: path.read_bytes() for path in (folder / "chatml").iterdir()}


@pytest.mark.parametrize(
    "tokenizer, rows, message",
    [
        ("loud", ["chatml_rows"], r"mixture\[0\].path: the dialogs of .*chatml_rows were written"),
        ("chatml", ["chatml_rows", "loud_rows"], r"mixture\[1\].path: the dialogs of .*loud_rows"),
        ("silent", ["chatml_rows"], r"mixture\[0\].path: .*silent has no chat template"),
    ],
)
def test_another_template_is_refused(folder, tokenizer, rows, message):
    run = run_of(folder, folder / tokenizer, *(str(folder / name) for name in rows))
    with pytest.raises(InputError, match=message):
        run_chat_format(run)


def test_answers_end_where_turns_do(folder, tmp_path):
    """The tokenizer of a base model to which a template was added."""
    base = shutil.copytree(folder / "chatml", tmp_path / "base")
    (base / "generation_config.json").write_text('{"eos_token_id": 257, "top_p": 0.9}')
    run = run_of(folder, base, str(folder / "chatml_rows"))
    copy_tokenizer(tmp_path, run.tokenizer, run_chat_format(run))
    left = read_json(tmp_path / "tokenizer" / "generation_config.json")
    end = load_tokenizer(base).special_tokens["<|im_end|>"]
    assert left == {"eos_token_id": [257, end], "top_p": 0.9}
