"""A checkpoint whose own template writes another prompt than the chosen form is told of."""

import json
import shutil

import pytest

from infer.guard.form_notes import form_notes
from infer.loaded_model import load_model
from llama_jax.safety import FORMS, GuardPolicy, LlamaGuard, Turn


@pytest.fixture
def load_with_template(guard_checkpoint, tmp_path):
    """The guard of conftest.py, with a chat template."""

    def load(template):
        folder = shutil.copytree(guard_checkpoint, tmp_path / "guard")
        path = folder / "tokenizer_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": template}))
        return load_model(folder)

    return load


def template_of(form):
    """Writes what the form does for one message."""
    guard = LlamaGuard(GuardPolicy(FORMS[form].categories), form=form)
    before, after = guard.text([Turn("user", "HERE")]).split("HERE")
    return f"{{{{ {before!r} }}}}{{{{ messages[0].content }}}}{{{{ {after!r} }}}}"


def test_the_published_form_is_no_news(load_with_template):
    loaded = load_with_template(template_of("huggingface"))
    assert form_notes("huggingface", loaded) == []
    (note,) = form_notes("cookbook", loaded)
    assert note.endswith("than --form cookbook: it writes --form huggingface")


def test_a_template_of_the_1b_model_is_known(load_with_template):
    (note,) = form_notes("huggingface", load_with_template(template_of("huggingface_1b")))
    assert note.endswith("than --form huggingface: it writes --form huggingface_1b")


def test_another_template_is_told_and_none_is_not(load_with_template, guard_checkpoint):
    (note,) = form_notes("huggingface", load_with_template("{{ messages[0].content }}"))
    assert note.endswith("see that the form is the model's")
    assert form_notes("huggingface", load_model(guard_checkpoint)) == []
