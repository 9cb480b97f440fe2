"""IFEval's file: what is asked, and the line of what cannot be."""

import json
from types import SimpleNamespace

import pytest

from infer.evaluation.ifeval_task import read_ifeval_task
from llama_jax.errors import InputError
from llama_jax.verifiers import ifeval_question

ROW = {"key": 1000, "prompt": "Say a.", "instruction_id_list": ["a"], "kwargs": [{}]}


@pytest.fixture(autouse=True)
def checks(monkeypatch):
    """Of one instruction, `a`, which an answer follows that has an a."""
    module = SimpleNamespace(
        instructions_registry=SimpleNamespace(INSTRUCTION_DICT={"a": None}),
        process_results=lambda document, results: {"inst_level_strict_acc": ["a" in results[0]]},
    )
    monkeypatch.setattr(ifeval_question, "_checks", lambda: module)


def read(tmp_path, *rows):
    path = tmp_path / "input.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_ifeval_task(path, name="ifeval:input")


def test_a_prompt_is_asked_as_it_stands(tmp_path):
    unnamed = {name: value for name, value in ROW.items() if name != "key"}
    first, second = read(tmp_path, ROW, unnamed).questions
    assert (first.name, second.name) == ("1000", "line-2")
    assert first.body == {
        "messages": [{"role": "user", "content": "Say a."}], "temperature": 0, "max_tokens": 1280
    }  # fmt: skip
    assert first.verifier("a") == 1.0 and first.verifier("b") == 0.0


@pytest.mark.parametrize(
    "rows, message",
    [
        ([ROW, {**ROW, "key": 2, "surprise": 1}], "line 2: surprise: unknown field; known: key"),
        ([ROW, {"key": 2, "prompt": "x"}], "line 2: metadata.instruction_id_list: must be list"),
        ([{**ROW, "instruction_id_list": ["c"]}], "line 1: instruction_id_list: 'c' is no"),
        ([ROW, ROW], "the key 1000 is there twice"),
        ([], "holds no question"),
    ],
)
def test_a_line_that_cannot_be_is_named(tmp_path, rows, message):
    with pytest.raises(InputError, match=f"input.jsonl: {message}"):
        read(tmp_path, *rows)
