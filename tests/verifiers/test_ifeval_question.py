"""Instructions that a program checks: with the real checks where lm-eval is installed, and what is
said where something is not."""

import importlib.util
import sys
from types import ModuleType, SimpleNamespace

import pytest

from llama_jax.errors import InputError
from llama_jax.verifiers import ifeval_question, verifier_of

FIELDS = {
    "verifier": "ifeval",
    "prompt": "Write without commas, in JSON.",
    "instruction_id_list": ["punctuation:no_comma", "detectable_format:json_format"],
    "kwargs": [{}, {}],
}
PACKAGES = ("lm_eval", "langdetect", "nltk", "immutabledict")


@pytest.fixture(autouse=True)
def anew():
    yield
    ifeval_question._checks.cache_clear()


@pytest.fixture
def package(monkeypatch):
    """The four packages, with checks of our own: an answer follows the instruction it holds."""

    def process_results(document, results):
        if any(kwargs.get("wrong") for kwargs in document["kwargs"]):
            raise TypeError("unexpected keyword argument 'wrong'")
        names = document["instruction_id_list"]
        return {"inst_level_strict_acc": [name in results[0] for name in names]}

    def find(name):
        if not there:
            raise LookupError(name)

    there = ["punkt"]
    registry = SimpleNamespace(INSTRUCTION_DICT={"a": None, "b": None})
    modules = {name: ModuleType(name) for name in (*PACKAGES, "lm_eval.tasks")}
    modules["lm_eval.tasks.ifeval"] = checks = ModuleType("lm_eval.tasks.ifeval")
    checks.utils = SimpleNamespace(process_results=process_results, instructions_registry=registry)
    modules["langdetect"].DetectorFactory = factory = SimpleNamespace(seed=None)
    modules["nltk"].data = SimpleNamespace(find=find)
    for name, module in modules.items():
        module.__spec__ = SimpleNamespace(name=name)
        monkeypatch.setitem(sys.modules, name, module)
    return SimpleNamespace(there=there, factory=factory)


def test_the_share_of_instructions_that_are_followed(package):
    verifier = verifier_of({**FIELDS, "instruction_id_list": ["a", "b"]})
    assert [verifier(text) for text in ("a b", "a", "")] == [1.0, 0.5, 0.0]
    assert verifier.name == "ifeval" and package.factory.seed == 0


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"instruction_id_list": ["c", "a"]}, "instruction_id_list: 'c' is no instruction of IF"),
        ({"instruction_id_list": [], "kwargs": []}, "instruction_id_list: must have at least one"),
        ({"kwargs": [{}]}, "kwargs: must be an object for each instruction"),
        ({"kwargs": [{}, 3]}, "kwargs: must be an object for each instruction"),
        ({"kwargs": [{"wrong": 1}, {}]}, "kwargs: do not fit the instructions .*'wrong'"),
        ({"prompt": " "}, "prompt: must be a text that is not empty"),
        ({"prompt": 3}, "metadata.prompt: must be str"),
        ({"loose": True}, "metadata.loose: unknown field"),
    ],
)
def test_a_question_that_cannot_be_is_named(package, changes, message):
    with pytest.raises(InputError, match=message):
        verifier_of({**FIELDS, "instruction_id_list": ["a", "b"], **changes})


def test_what_is_not_installed_is_said_before_a_model_answers(package, monkeypatch):
    package.there.clear()
    with pytest.raises(InputError, match="nltk's data .*; python -m nltk.downloader punkt_tab"):
        verifier_of(FIELDS)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"lm_eval is not installed; pip install 'lm-eval\[ifeva"):
        verifier_of(FIELDS)


@pytest.mark.slow
@pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in PACKAGES),
    reason="needs lm-eval: pip install 'lm-eval[ifeval]==0.4.13'",
)
def test_the_real_checks(monkeypatch):
    """Of instructions that need no sentences, for which nltk would want a download."""
    import nltk

    monkeypatch.setattr(nltk.data, "find", lambda name: name)
    monkeypatch.setattr(nltk, "download", lambda name: None)
    verifier = verifier_of(FIELDS)
    for text, score in (
        ('{"a": 1}', 1.0), ("no comma here", 0.5), ('{"a": 1, "b": 2}', 0.5), ("a, b", 0.0),
        ("", 0.0),
    ):  # fmt: skip
        assert verifier(text) == score
    words = {"relation": "at least", "num_words": 3}
    longer = verifier_of(
        {**FIELDS, "instruction_id_list": ["length_constraints:number_words"], "kwargs": [words]}
    )
    assert longer("one two three") == 1.0 and longer("one two") == 0.0
    with pytest.raises(InputError, match="kwargs: do not fit the instructions"):
        verifier_of({**FIELDS, "kwargs": [{"surprise": 1}, {}]})
