"""Questions out of lm-eval's folders: of one made here, and of the real package where it is."""

import importlib.util

import pytest

from infer.evaluation.mmlu_dev_task import LANGUAGES, read_mmlu_dev_task
from llama_jax.errors import InputError

TEMPLATE = """
doc_to_text: "Q: {{input_question.strip()}}\\nA. {{input_choice_list.A}} B. {{input_choice_list.B}}"
gen_prefix: "The answer is"
"""
SUBJECT = """
fewshot_config:
  sampler: first_n
  samples:
  - input_choice_list: {A: 'zero', B: 'one'}
    input_correct_responses: [B]
    input_question: " How many? "
include: _continuation_template_yaml
process_docs: !function utils.process
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    folder = tmp_path / "lm_eval" / "tasks" / "llama3" / "instruct" / "mmlu_de"
    folder.mkdir(parents=True)
    (tmp_path / "lm_eval" / "__init__.py").write_text("raise RuntimeError('not to be run')")
    (folder / "_continuation_template_yaml").write_text(TEMPLATE)
    (folder / "_mmlu_de_stem.yaml").write_text("group: x\n")
    (folder / "mmlu_de_counting.yaml").write_text(SUBJECT)
    monkeypatch.syspath_prepend(tmp_path)
    return folder


def test_a_question_is_the_packages_own_prompt(package):
    task = read_mmlu_dev_task("de", name="mmlu-dev:de")
    (question,) = task.questions
    assert question.user == "Q: How many?\nA. zero B. one"
    assert question.lead == "The answer is"
    assert question.plain == f"{question.user}\nThe answer is"
    assert question.choices == ("A", "B") and question.answer == 1
    assert (question.name, question.category) == ("counting-0", "counting")


@pytest.mark.parametrize(
    "text, message",
    [
        (SUBJECT.replace("[B]", "[C]"), "is not as in lm-eval 0.4.13"),
        (SUBJECT.replace("input_question", "question"), "is not as in lm-eval 0.4.13"),
        ("fewshot_config: {}", "is not as in lm-eval 0.4.13"),
    ],
)
def test_another_form_is_refused(package, text, message):
    (package / "mmlu_de_counting.yaml").write_text(text)
    with pytest.raises(InputError, match=message):
        read_mmlu_dev_task("de", name="mmlu-dev:de")


def test_another_version_of_the_package_is_refused(package):
    (package / "_continuation_template_yaml").unlink()
    with pytest.raises(InputError, match="no such file in this version of lm-eval"):
        read_mmlu_dev_task("de", name="mmlu-dev:de")


@pytest.mark.skipif(
    importlib.util.find_spec("lm_eval") is None,
    reason="needs lm-eval: pip install --no-deps lm-eval==0.4.13",
)
@pytest.mark.parametrize("language", LANGUAGES)
def test_the_real_package_has_285_questions_of_each_language(language):
    task = read_mmlu_dev_task(language, name="t")
    assert len(task.questions) == 285
    assert len({question.category for question in task.questions}) == 57
    for question in task.questions:
        assert question.choices == ("A", "B", "C", "D") and question.lead == "The best answer is"
        assert question.user.count("\nA. ") >= 1
