"""The development questions of MMLU in seven languages, out of the installed package lm-eval.

The harness carries Meta's prompts of Llama 3.1's evaluations, with 285 questions a language as
examples (its folder tasks/llama3/instruct).

285 questions tell a model that learns a language from one that does not; they are not MMLU, whose
test questions are in no package.
"""

from typing import Any

from infer.evaluation.lm_eval_files import (
    INSTALL,
    not_as_expected,
    read_task_file,
    rendered,
    tasks_folder,
)
from infer.evaluation.questions import ChoiceQuestion, Task
from llama_jax.errors import InputError

LANGUAGES = ("de", "es", "fr", "hi", "it", "pt", "th")
_TEMPLATE = "_continuation_template_yaml"
_FIELDS = {"input_question", "input_choice_list", "input_correct_responses"}


def read_mmlu_dev_task(language: str, *, name: str) -> Task:
    """All subjects, a category each; asked without examples. Raises `InputError` if the package is
    missing or holds something else."""
    if language not in LANGUAGES:
        raise InputError(f"{name}: no such language; there are {', '.join(LANGUAGES)}")
    folder = tasks_folder() / "llama3" / "instruct" / f"mmlu_{language}"
    template = read_task_file(folder / _TEMPLATE)
    questions = []
    for path in sorted(folder.glob(f"mmlu_{language}_*.yaml")):
        subject = path.stem.removeprefix(f"mmlu_{language}_")
        fields = read_task_file(path)
        try:
            samples = fields["fewshot_config"]["samples"]
            questions += [
                _question(sample, f"{subject}-{number}", subject, template)
                for number, sample in enumerate(samples)
            ]
        except (KeyError, TypeError, ValueError) as error:
            raise not_as_expected(path, error) from None
    if not questions:
        raise InputError(f"{folder}: holds no questions; {INSTALL}")
    return Task(name, tuple(questions))


def _question(
    sample: dict[str, Any], name: str, subject: str, template: dict[str, Any]
) -> ChoiceQuestion:
    if sample.keys() != _FIELDS:
        raise ValueError(f"fields {sorted(sample)}")
    letters = tuple(sample["input_choice_list"])
    user = rendered(template["doc_to_text"], sample)
    lead = template["gen_prefix"]
    return ChoiceQuestion(
        name=name,
        category=subject,
        user=user,
        lead=lead,
        plain=f"{user}\n{lead}",
        choices=letters,
        answer=letters.index(sample["input_correct_responses"][0]),
    )
