"""Questions of IFEval (arXiv 2311.07911): whether an answer follows instructions that a program can
check, such as "in at least 300 words" or "without commas".

The checks are those of the package lm-eval with its extra `ifeval`, which are the paper's own.
"""

import functools
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, ClassVar

from llama_jax.errors import InputError

INSTALL = "pip install 'lm-eval[ifeval]==0.4.13'"
# Where the tokenizer of sentences lies in nltk's data.
_SENTENCES = "tokenizers/punkt_tab"


@dataclass(frozen=True)
class IfevalQuestion:
    """Marked by the share of its instructions that an answer follows, as it stands (`strict`):
    right is one that follows all.

    Attributes:
      prompt: the question, which some instructions have repeated.
      instruction_id_list: names of the checks.
      kwargs: what each of them needs to know.
    """

    prompt: str
    instruction_id_list: tuple[str, ...]
    kwargs: tuple[Mapping[str, Any], ...]
    name: ClassVar[str] = "ifeval"

    def __call__(self, text: str) -> float:
        document = {
            "key": 0,
            "prompt": self.prompt,
            "instruction_id_list": list(self.instruction_id_list),
            "kwargs": [dict(kwargs) for kwargs in self.kwargs],
        }
        followed = _checks().process_results(document, [text])["inst_level_strict_acc"]
        return sum(followed) / len(followed)


def ifeval_question(fields: Mapping[str, Any]) -> IfevalQuestion:
    """The question with `prompt`, `instruction_id_list` and `kwargs`.

    Raises `InputError` that names the field, or says what is not installed.
    """
    prompt, names, kwargs = (fields[name] for name in ("prompt", "instruction_id_list", "kwargs"))
    known = _checks().instructions_registry.INSTRUCTION_DICT
    if not prompt.strip():
        raise InputError("prompt: must be a text that is not empty")
    if not names:
        raise InputError("instruction_id_list: must have at least one instruction")
    for name in names:
        if not isinstance(name, str) or name not in known:
            raise InputError(f"instruction_id_list: {name!r} is no instruction of IFEval")
    if len(kwargs) != len(names) or not all(isinstance(one, dict) for one in kwargs):
        raise InputError("kwargs: must be an object for each instruction")
    question = IfevalQuestion(prompt, tuple(names), tuple(kwargs))
    try:
        question("an answer")  # what the checks cannot be asked with is known before the model is
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"kwargs: do not fit the instructions ({error!r})") from error
    return question


@functools.cache
def _checks() -> ModuleType:
    """The module of the checks. Raises `InputError` for what they need and is not there."""
    for package in ("lm_eval", "langdetect", "nltk", "immutabledict"):
        if importlib.util.find_spec(package) is None:
            raise InputError(f"the package {package} is not installed; {INSTALL}")
    import langdetect
    import nltk

    try:
        nltk.data.find(_SENTENCES)
    except LookupError:
        raise InputError(
            f"nltk's data {_SENTENCES} is not there; python -m nltk.downloader punkt_tab"
        ) from None
    langdetect.DetectorFactory.seed = 0  # it draws, and the same answer is to have the same mark
    try:
        from lm_eval.tasks.ifeval import utils
    except ImportError as error:
        raise InputError(f"lm-eval cannot be imported ({error}); {INSTALL}") from error
    return utils
