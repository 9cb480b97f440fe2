"""Where the text side of a checkpoint is found, and that nothing is written to find it."""

import shutil

import pytest

from infer.loaded_model import load_model
from llama_jax.checkpoints.load import load_checkpoint
from llama_jax.errors import InputError
from train.checkpointing import Checkpointer
from train.config import CheckpointConfig
from train.progress import Progress


def files_in(folder):
    return sorted(path.relative_to(folder) for path in folder.rglob("*"))


def test_a_checkpoint_is_left_as_it_is(chat_checkpoint, tmp_path):
    """Repositories of Llama 3.1 hold Meta's tokenizer too, in a folder of its own."""
    folder = shutil.copytree(chat_checkpoint, tmp_path / "model")
    (folder / "original").mkdir()
    (folder / "original" / "tokenizer.model").write_text("never read")
    before = files_in(folder)
    assert load_model(folder).chat_format is not None
    assert files_in(folder) == before


@pytest.fixture
def run(chat_checkpoint, tmp_path):
    """The folder of a training run, without a tokenizer."""
    config, params = load_checkpoint(chat_checkpoint)
    checkpointer = Checkpointer(tmp_path / "run", CheckpointConfig(every_steps=5))
    checkpointer.save({"params": params}, Progress(step=5), config)
    checkpointer.close()
    return tmp_path / "run"


def test_a_training_run_answers_with_its_tokenizer_and_templates(run, chat_checkpoint):
    names = ("model.safetensors", "config.json", "generation_config.json")
    shutil.copytree(chat_checkpoint, run / "tokenizer", ignore=shutil.ignore_patterns(*names))
    templates = run / "tokenizer" / "additional_chat_templates"
    templates.mkdir()
    (templates / "tool_use.jinja").write_text("{{ messages }}")
    before = files_in(run)
    model, expected = load_model(run), load_model(chat_checkpoint)
    assert model.tokenizer.encode("hello") == expected.tokenizer.encode("hello")
    assert type(model.chat_format) is type(expected.chat_format)
    assert files_in(run) == before


def test_a_training_run_without_a_tokenizer_is_named(run):
    with pytest.raises(InputError, match=f"^{run}: "):
        load_model(run)
