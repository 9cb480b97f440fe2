"""The development questions of MMLU in seven languages, out of the installed package lm-eval.

The harness carries Meta's prompts of Llama 3.1's evaluations, with 285 questions a language as
examples (its folder tasks/llama3/instruct). They are read where they are installed: whose the
translations are is not said there, so nothing of them is copied. The package is data to us: it is
not imported, and needs none of its dependencies.

285 questions tell a model that learns a language from one that does not; they are not MMLU, whose
test questions are in no package.
"""

import importlib.util
from pathlib import Path
from typing import Any

from infer.evaluation.questions import ChoiceQuestion, Task
from llama_jax.errors import InputError

LANGUAGES = ("de", "es", "fr", "hi", "it", "pt", "th")
INSTALL = "pip install --no-deps lm-eval==0.4.13"
_TEMPLATE = "_continuation_template_yaml"
_FIELDS = {"input_question", "input_choice_list", "input_correct_responses"}


def read_mmlu_dev_task(language: str, *, name: str) -> Task:
    """All subjects, a category each; asked without examples. Raises `InputError` if the package is
    missing or holds something else."""
    if language not in LANGUAGES:
        raise InputError(f"{name}: no such language; there are {', '.join(LANGUAGES)}")
    folder = _folder() / f"mmlu_{language}"
    template = _read(folder / _TEMPLATE)
    questions = []
    for path in sorted(folder.glob(f"mmlu_{language}_*.yaml")):
        subject = path.stem.removeprefix(f"mmlu_{language}_")
        fields = _read(path)
        try:
            samples = fields["fewshot_config"]["samples"]
            questions += [
                _question(sample, f"{subject}-{number}", subject, template)
                for number, sample in enumerate(samples)
            ]
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{path}: is not as in lm-eval 0.4.13 ({error!r}); {INSTALL}"
            ) from None
    if not questions:
        raise InputError(f"{folder}: holds no questions; {INSTALL}")
    return Task(name, tuple(questions))


def _question(
    sample: dict[str, Any], name: str, subject: str, template: dict[str, Any]
) -> ChoiceQuestion:
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    if sample.keys() != _FIELDS:
        raise ValueError(f"fields {sorted(sample)}")
    letters = tuple(sample["input_choice_list"])
    user = ImmutableSandboxedEnvironment().from_string(template["doc_to_text"]).render(sample)
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


def _folder() -> Path:
    found = importlib.util.find_spec("lm_eval")  # does not run the package
    if found is None or not found.submodule_search_locations:
        raise InputError(f"the package lm-eval is not installed; {INSTALL}")
    return Path(found.submodule_search_locations[0]) / "tasks" / "llama3" / "instruct"


def _read(path: Path) -> dict[str, Any]:
    import yaml

    class Loader(yaml.SafeLoader):
        """Functions that a file names are not looked up."""

    Loader.add_multi_constructor("!function", lambda loader, suffix, node: None)
    if not path.is_file():
        raise InputError(f"{path}: there is no such file in this version of lm-eval; {INSTALL}")
    return yaml.load(path.read_text(encoding="utf-8"), Loader)
