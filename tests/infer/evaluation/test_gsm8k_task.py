"""GSM8K's file and lm-eval's prompts: of a package made here, and of the real one where it is."""

import importlib.util
import json

import pytest

from infer.evaluation.gsm8k_task import read_gsm8k_task
from llama_jax.errors import InputError

CHAT = """
doc_to_text: "Problem: {{question}}"
fewshot_config:
  samples:
  - {question: "One and one?", target: The final answer is 2}
  - {question: "Two and one?", target: The final answer is 3}
process_docs: !function utils.process
"""
LINES = [
    {"question": "Two and two?", "answer": "2 + 2 = <<2+2=4>>4\n#### 4"},
    {"question": "A thousand?", "answer": "#### 1,000"},
]


@pytest.fixture
def file(tmp_path):
    return write(tmp_path / "test.jsonl", LINES)


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def package(tmp_path, monkeypatch):
    tasks = tmp_path / "lm_eval" / "tasks"
    for name, text in (
        ("llama3/instruct/gsm8k/gsm8k.yaml", CHAT),
        ("gsm8k/gsm8k-cot.yaml", CHAT.replace("Problem: {{question}}", "Q: {{question}}\\nA:")),
    ):
        (tasks / name).parent.mkdir(parents=True)
        (tasks / name).write_text(text)
    (tmp_path / "lm_eval" / "__init__.py").write_text("raise RuntimeError('not to be run')")
    monkeypatch.syspath_prepend(tmp_path)
    return tasks


def test_examples_are_earlier_turns_or_stand_above(package, file):
    first, second = read_gsm8k_task(file, name="gsm8k:test", few_shot=2).questions
    turns = [(turn["role"], turn["content"]) for turn in first.body["messages"]]
    assert turns == [
        ("user", "Problem: One and one?"), ("assistant", "The final answer is 2"),
        ("user", "Problem: Two and one?"), ("assistant", "The final answer is 3"),
        ("user", "Problem: Two and two?"),
    ]  # fmt: skip
    assert second.plain["prompt"] == (
        "Q: One and one?\nA: The final answer is 2\n\nQ: Two and one?\nA: The final answer is 3\n\n"
        "Q: A thousand?\nA:"
    )
    assert second.plain["stop"] == ["Q:"] and first.body["temperature"] == 0
    assert first.verifier("so it is 4.") == 1.0 and first.verifier("4 or 5") == 0.0
    assert second.verifier("$1000") == 1.0


def test_without_examples(package, file):
    (first, _) = read_gsm8k_task(file, name="gsm8k:test", few_shot=0).questions
    assert len(first.body["messages"]) == 1 and first.plain["prompt"] == "Q: Two and two?\nA:"


@pytest.mark.parametrize(
    "row, message",
    [
        ({"question": "q", "answer": "five"}, "answer: must end in #### and a number"),
        ({"question": "q", "answer": "#### five"}, "answer: must end in #### and a number"),
        ({"question": "", "answer": "#### 5"}, "question: must be a text"),
        ({"question": "q"}, "answer: must be a text"),
        ({"question": "q", "answer": "#### 5", "more": 1}, "more: unknown field"),
    ],
)
def test_a_line_that_cannot_be_is_named(package, tmp_path, row, message):
    path = write(tmp_path / "wrong.jsonl", [LINES[0], row])
    with pytest.raises(InputError, match=f"wrong.jsonl: line 2: {message}"):
        read_gsm8k_task(path, name="x", few_shot=1)


def test_a_package_that_is_missing_or_another_is_named(package, file, monkeypatch):
    with pytest.raises(InputError, match="gsm8k: --few-shot must be from 0 to 8, not 9"):
        read_gsm8k_task(file, name="gsm8k", few_shot=9)
    with pytest.raises(InputError, match="gsm8k.yaml: is not as in lm-eval .*2 examples"):
        read_gsm8k_task(file, name="gsm8k", few_shot=3)
    (package / "gsm8k" / "gsm8k-cot.yaml").write_text("doc_to_text: x\n")
    with pytest.raises(InputError, match="gsm8k-cot.yaml: is not as in lm-eval 0.4.13 .*fewshot"):
        read_gsm8k_task(file, name="gsm8k", few_shot=1)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="the package lm-eval is not installed; pip install"):
        read_gsm8k_task(file, name="gsm8k", few_shot=1)


@pytest.mark.skipif(
    importlib.util.find_spec("lm_eval") is None,
    reason="needs lm-eval: pip install --no-deps lm-eval==0.4.13",
)
def test_the_real_package_s_examples_answer_themselves(file):
    first, _ = read_gsm8k_task(file, name="gsm8k", few_shot=8).questions
    turns = first.body["messages"]
    assert len(turns) == 17 and "The final answer is" in turns[-1]["content"]
    assert turns[-2]["content"].endswith("The final answer is 8.")
    assert first.plain["prompt"].count("Q: ") == 9 and first.plain["prompt"].endswith("\nA:")
